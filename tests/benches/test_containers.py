"""The formats of compressed dumps: only what makedumpfile has compressed is measured."""

import json
from pathlib import Path

import pytest
from benches.pairing import Pair

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


def test_the_quietest_turn_of_two_threads_is_shown_with_its_limit() -> None:
    what = "a whole dump in sequence, LZO, elapsed time"
    # In the last turn something else ran while one thread did.
    one = [12.0, 9.0, 40.0]
    two = Pair(what, containers.TWO, containers.BARE_ONE, 1, [10.0, 6.0, 9.0], one)
    limit = Pair(what, containers.BARE_TWO, containers.BARE_ONE, 1, [9.0, 5.0, 9.0], one)
    turn = "a whole dump in sequence, LZO, the quietest turn: "
    assert [(figure.what, figure.value) for figure in containers.quietest_turn(two, limit)] == [
        (f"{turn}2 threads, to the decoder alone, 1 thread", 1.5),
        (f"{turn}the decoder alone, 2 threads, to the decoder alone, 1 thread", 1.8),
    ]


def test_a_peer_that_cannot_read_the_dump_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = {"xkdump": (["true"], b""), "crash": (["false"], b""), "drgn": (["true"], b"")}
    found = list(containers.processes(2, "zlib", commands))
    assert [(pair.theirs, len(pair.ours_ns)) for pair in found] == [("drgn", 2)]
    assert "without crash, zlib" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="xkdump cannot read the dump"):
        list(containers.processes(2, "zlib", {"xkdump": (["false"], b"")}))
