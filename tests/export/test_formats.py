"""Exported files of every format hold the memory that the source has."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast import Domain
from xenkdump_fast._native import ExportControl, export
from xenkdump_fast.export import Request, of_domain, write
from xenkdump_fast.export.request import Format
from xenkdump_forge import write_dump
from xenkdump_forge.containers.kdump import Options
from xenkdump_forge.containers.kdump import write as write_kdump
from xenkdump_forge.elf import format as elf
from xenkdump_forge.elf.core import Core
from xenkdump_forge.memory.machine import MachineMemory

PAGE = 4096
FORMATS: list[Format] = ["elf", "kdump", "lime", "raw"]


@pytest.fixture(scope="module")
def dom0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    made = write_dump(tmp_path_factory.mktemp("sample"), "modern")
    with xk.open(made.vmcore) as dump:
        yield dump.domain(0, made.vmlinux)


def opened(path: Path, form: Format) -> xk.Dump:
    return xk.open(path, format="raw" if form == "raw" else None)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("level", [0, 1])
def test_all_pages(dom0: Domain, form: Format, level: int, tmp_path: Path) -> None:
    request = Request(str(tmp_path / "out"), form, level)
    written = write(of_domain(dom0, request), request)
    bare = dom0.as_bare()
    total = 0
    with opened(tmp_path / "out", form) as found:
        for first, count in bare.runs().tolist():
            pages = np.arange(first, first + count, dtype=np.uint64) * np.uint64(PAGE)
            expected = bare.memory.read_many(pages, PAGE)
            assert np.array_equal(found.machine.read_many(pages, PAGE), expected)
            total += count
        assert found.warnings == []
    assert written.written + written.zero == total
    assert written.zero > 0
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("compression", ["zlib", "zstd", "none"])
def test_compressions(dom0: Domain, compression: str, tmp_path: Path) -> None:
    request = Request(str(tmp_path / "out"), "kdump", 0, compression)  # type: ignore[arg-type]
    write(of_domain(dom0, request), request)
    again = Request(str(tmp_path / "again"), "kdump", 0, compression)  # type: ignore[arg-type]
    write(of_domain(dom0, again), again, threads=7)
    one, two = (tmp_path / "out").read_bytes(), (tmp_path / "again").read_bytes()
    # Whatever the number of threads, apart from the time in the header and the name in the note.
    assert len(one) - len(two) in range(-8, 9)
    bare = dom0.as_bare()
    with xk.open(tmp_path / "out") as found:
        first, count = bare.runs()[0].tolist()
        size = count * PAGE
        assert found.machine.read(first * PAGE, size) == bare.memory.read(first * PAGE, size)


def machine(path: Path, pages: int, missing: range) -> xk.Dump:
    """A kdump-compressed dump without notes, some of whose pages are corrupt."""
    memory = MachineMemory(pages * PAGE, ())
    for mfn in range(pages):
        memory.write(mfn * PAGE, struct.pack("<Q", mfn + 1) * 512)
    write_kdump(Core(elf.ELF64, elf.EM_X86_64, memory, []), [path], Options("zlib"))
    data = bytearray(path.read_bytes())
    # Descriptors follow the headers and both bitmaps.
    (sub, bitmaps) = struct.unpack_from("<II", data, 432)
    table = (1 + sub + bitmaps) * PAGE
    for mfn in missing:
        at, size = struct.unpack_from("<QI", data, table + mfn * 24)
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    return xk.open(path)


OPTIONS = {
    "elf": {"machine": 62, "is_64": True, "notes": b"", "direct": None, "others": []},
    "kdump": {
        "is_64": True,
        "compression": "zlib",
        "level": 0,
        "utsname": [b""] * 4 + [b"x86_64", b""],
        "notes": b"",
        "vmcoreinfo": (0, 0),
        "phys_base": 0,
        "cpus": 1,
    },
    "lime": {},
    "raw": {},
}


@pytest.mark.parametrize("form", FORMATS)
def test_unreadable_pages(form: Format, tmp_path: Path) -> None:
    pages, missing = 300, range(100, 170)
    dump = machine(tmp_path / "source", pages, missing)
    runs = np.array([0, pages], np.uint64)
    native = dump.native
    report = export(
        (native, native), tmp_path / "out", (runs, runs), form, OPTIONS[form], ExportControl()
    )
    keeps_zeros = form in ("lime", "raw")
    assert report == {
        "written": pages - len(missing),
        "zero": 0,
        "lost": len(missing),
        "lost_as_zeros": len(missing) if keeps_zeros else 0,
        "first_lost": missing[0],
        "is_stopped": False,
    }
    with opened(tmp_path / "out", form) as found:
        status = np.empty(pages, np.uint8)
        addresses = np.arange(pages, dtype=np.uint64) * np.uint64(PAGE)
        rows = found.machine.read_many(addresses, 8, status=status).view("<u8")[:, 0]
        held = np.array([mfn not in missing for mfn in range(pages)])
        assert np.array_equal(rows[held], np.arange(1, pages + 1)[held])
        assert np.array_equal(status == 0, held | keeps_zeros)
        assert found.warnings == []


def test_more_runs_than_program_headers_have_numbers_for(tmp_path: Path) -> None:
    pages = 140_000
    memory = MachineMemory(pages * PAGE, ())
    memory.write(2 * PAGE, b"here")
    core = Core(elf.ELF64, elf.EM_X86_64, memory, [])
    core.write(tmp_path / "source")
    runs = np.stack([np.arange(0, pages, 2), np.ones(pages // 2)], axis=1)
    flat = runs.astype(np.uint64).reshape(-1)
    with xk.open(tmp_path / "source") as dump:
        native = dump.native
        export(
            (native, native),
            tmp_path / "out",
            (flat, flat),
            "elf",
            OPTIONS["elf"],
            ExportControl(),
        )
    with xk.open(tmp_path / "out") as found:
        assert len(found.native.segments) == pages // 2
        assert found.machine.read(2 * PAGE, 4) == b"here"
        assert found.warnings == []


@pytest.mark.parametrize(
    ("form", "changes", "runs", "problem"),
    [
        ("elf", {"is_64": False}, [1 << 20, 1], "ELF32 cannot hold memory above 4 GiB"),
        ("kdump", {}, [1 << 35, 1], "are not written"),
        ("raw", {}, [(1 << 52) - 1, 1], "cannot hold it"),
        ("raw", {}, [5, 2, 6, 1], "are not a run after the one before"),
    ],
)
def test_what_a_format_cannot_hold(
    form: Format, changes: dict[str, object], runs: list[int], problem: str, tmp_path: Path
) -> None:
    dump = machine(tmp_path / "source", 4, range(0)).native
    flat = np.array(runs, np.uint64)
    options = {**OPTIONS[form], **changes}
    with pytest.raises(xk.AbsentError, match=problem):
        export((dump, dump), tmp_path / "out", (flat, flat), form, options, ExportControl())


def test_it_can_be_stopped(tmp_path: Path) -> None:
    dump = machine(tmp_path / "source", 300, range(0)).native
    control = ExportControl()
    control.stop()
    runs = np.array([0, 300], np.uint64)
    report = export((dump, dump), tmp_path / "out", (runs, runs), "raw", {}, control)
    assert report["is_stopped"]
    assert report["written"] == 0
