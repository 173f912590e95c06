"""The formats of compressed dumps: only what makedumpfile has compressed is measured."""

import json
from pathlib import Path

import pytest

from benches import containers

#: Writes its last operand with the flags of zlib, or fails for the option of LZO.
PROGRAM = """#!/bin/sh
for target; do :; done
case " $* " in *" -l "*) exit 1 ;; esac
head -c 424 /dev/zero > "$target"
printf '\\001\\000\\000\\000' >> "$target"
"""


def test_formats_that_cannot_be_written_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "makedumpfile"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("XKDUMP_MAKEDUMPFILE", str(program))
    monkeypatch.setenv("XKDUMP_BENCH", str(tmp_path))
    vmcore = tmp_path / "vmcore"
    vmcore.touch()
    assert [name for name, _ in containers.converted(str(vmcore))] == ["zlib"]
    found = [json.loads(line)["missing"] for line in capsys.readouterr().out.splitlines()]
    assert [text.split(",")[0] for text in found] == [
        f"dumps compressed by {name}" for name in ("LZO", "snappy", "zstd")
    ]
    assert [path.name for path in tmp_path.glob("*.kdump")] == ["kernel-zlib-0.kdump"]
