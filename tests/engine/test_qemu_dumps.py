"""dump-guest-memory in QEMU's formats: all give the memory that QEMU was started with."""

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast import Status

PAGE = 4096
AT, SIZE = 0x10_0000, 3_000_000
#: Those with "raw" are not flattened; QEMU has them since 8.2 (-R).
FORMATS = [f"kdump-{raw}{codec}" for raw in ("", "raw-") for codec in ("zlib", "lzo", "snappy")]


class Machine:
    """A machine that never ran, controlled by QMP."""

    def __init__(self, qemu: str, data: Path) -> None:
        self.process = subprocess.Popen(
            [
                *(qemu, "-S", "-nodefaults", "-display", "none", "-m", "32", "-qmp", "stdio"),
                *("-machine", "pc,accel=tcg"),
                *("-device", f"loader,file={data},addr={AT},force-raw=on"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.command("qmp_capabilities")
        self.formats = self.command("query-dump-guest-memory-capability")["formats"]

    def command(self, name: str, **arguments: object) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        stdin.flush()
        for line in stdout:
            answer = json.loads(line)
            if "error" in answer:
                raise AssertionError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]
        raise AssertionError("QEMU ended")

    def dump(self, path: Path, form: str) -> str:
        options: dict[str, object] = {"paging": False, "protocol": f"file:{path}"}
        self.command("dump-guest-memory", **options, format=form)
        return str(path)


@pytest.fixture(scope="module")
def data() -> bytes:
    """Pages that can be compressed, and pages that cannot."""
    chance = random.Random(1)
    pages = [chance.choice([chance.randbytes(PAGE), bytes([i % 251]) * PAGE]) for i in range(800)]
    return b"".join(pages)[:SIZE]


@pytest.fixture(scope="module")
def machine(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    path = tmp_path_factory.mktemp("qemu") / "data"
    path.write_bytes(data)
    machine = Machine(qemu, path)
    yield machine
    machine.process.kill()
    machine.process.communicate()


@pytest.mark.parametrize("form", FORMATS)
def test_the_memory_is_that_of_the_elf_file(
    form: str, machine: Machine, data: bytes, tmp_path: Path
) -> None:
    if form not in machine.formats:
        pytest.skip(f"this build of QEMU does not write {form}")
    elf = xk.open(machine.dump(tmp_path / "elf", "elf"))
    dump = xk.open(machine.dump(tmp_path / "kdump", form))
    is_flattened = "raw" not in form
    expected = "flattened kdump-compressed dump" if is_flattened else "kdump-compressed dump"
    assert dump.native.format == expected
    assert dump.warnings == []
    assert [note.kind for note in dump.notes] == [note.kind for note in elf.notes]
    assert dump.machine.read(AT, len(data)) == data
    for start, size, _ in elf.native.segments:
        pages = np.arange(start, start + size, PAGE, dtype=np.uint64)
        status = np.empty(len(pages), np.uint8)
        rows = dump.machine.read_many(pages, PAGE, status=status)
        assert np.all(status == Status.OK)
        assert np.array_equal(rows, elf.machine.read_many(pages, PAGE))
