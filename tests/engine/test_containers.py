"""Other containers than ELF: all give the memory of the ELF file of the same machine."""

import itertools
import os
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import zstandard

import xenkdump_fast as xk
from xenkdump_fast import Status
from xenkdump_fast._native import AddressSpace, Dump
from xenkdump_fast.cli import main
from xenkdump_forge import FORMATS, write_dump
from xenkdump_forge.containers import flattened, images, kdump
from xenkdump_forge.containers.compression import CODECS
from xenkdump_forge.containers.whole import frame as zstd_frame
from xenkdump_forge.containers.whole import seek_table
from xenkdump_forge.elf import format as elf
from xenkdump_forge.elf import notes
from xenkdump_forge.elf.core import Core
from xenkdump_forge.memory.machine import PAGE, MachineMemory

SIZE = 12 << 20
HOLES = ((0x9F000, 0x100000), (0x500000, 0x703000))
PAGES = SIZE // PAGE
VMCOREINFO = b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"


def machine(word: int = 8) -> Core:
    """Pages that compress well, badly and not at all, and pages of zeros."""
    chance = random.Random(word)
    memory = MachineMemory(SIZE, HOLES)
    for mfn in range(PAGES):
        kind = chance.randrange(5)
        address = mfn * PAGE
        if kind == 0 or any(start <= address < end for start, end in HOLES):
            continue
        data = {
            1: chance.randbytes(PAGE),
            2: struct.pack("<Q", mfn) * 512,
            3: bytes(100) + struct.pack("<I", mfn) + bytes(3000) + b"text " * 50,
            4: chance.randbytes(700).ljust(PAGE, b"\xa5"),
        }[kind]
        memory.write(address, data)
    registers = {"rip": 0x1234, "rsp": 0x5678} if word == 8 else {"eip": 0x1234, "esp": 0x5678}
    group = [notes.prstatus(word, registers), notes.Note("VMCOREINFO", 0, VMCOREINFO)]
    layout, number = (elf.ELF64, elf.EM_X86_64) if word == 8 else (elf.ELF32, elf.EM_386)
    return Core(layout, number, memory, [group])


class Pair(NamedTuple):
    """The same machine as an ELF file, and as the parts of any other."""

    core: Core
    reference: AddressSpace
    folder: Path


@pytest.fixture(scope="module", params=[8, 4], ids=["x86_64", "i386"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    core = machine(request.param)
    folder = tmp_path_factory.mktemp("containers")
    core.write(folder / "elf")
    return Pair(core, Dump(str(folder / "elf")).machine, folder)


def is_held(address: int) -> bool:
    return not any(start <= address < end for start, end in HOLES) and address < SIZE


def assert_same(space: AddressSpace, reference: AddressSpace) -> None:
    """Equal memory by single reads, batches on one and on more threads, long reads and searches."""
    chance = random.Random(7)
    held = [page * PAGE for page in range(PAGES) if is_held(page * PAGE)]
    for _ in range(300):
        at = chance.choice(held) + chance.randrange(PAGE - 8)
        assert space.u64(at) == reference.u64(at)
    for at, size in ((0, 0x9F000), (0x100003, 0x123456), (0x703000, SIZE - 0x703000)):
        assert space.read(at, size) == reference.read(at, size)
    some = np.array([chance.choice(held) + chance.randrange(0xFF0) for _ in range(5000)])
    some[17], some[4000] = HOLES[0][0] + 5, SIZE
    addresses = some.astype(np.uint64)
    expected_status = np.empty(5000, dtype=np.uint8)
    expected = reference.read_many(addresses, 16, status=expected_status)
    for threads in (1, 2, 8):
        status = np.empty(5000, dtype=np.uint8)
        rows = space.read_many(addresses, 16, threads=threads, status=status)
        assert (rows == expected).all()
        assert (status == expected_status).all()
    assert status[17] == status[4000] == Status.NO_SEGMENT
    members = [("far", 0x1800, 8), ("near", 3, 2), ("long", 8, 0x1000)]
    expected_structs = reference.read_struct_many(addresses, members, status=expected_status)
    for threads in (1, 8):
        structs = space.read_struct_many(addresses, members, threads=threads, status=status)
        assert (structs == expected_structs).all()
        assert (status == expected_status).all()
    # Needles that do not overlap themselves; the first one lies on two pages.
    for needle in (reference.read(0x103FF0, 32), b"\0\0text", reference.read(SIZE - 16, 16)):
        assert space.find(needle, 0, SIZE * 2) == reference.find(needle, 0, SIZE * 2)


@pytest.mark.parametrize("compression", ["raw", *CODECS])
@pytest.mark.parametrize("cache_size", [None, 0])
def test_compressions(pair: Pair, compression: str, cache_size: int | None) -> None:
    path = pair.folder / f"kdump-{compression}"
    kdump.write(pair.core, [path], compression=compression)
    dump = Dump(path, cache_size=cache_size)
    assert dump.format == "kdump-compressed dump"
    assert dump.warnings == []
    assert dump.memory_held == dump.memory_size == sum(map(is_held, range(0, SIZE, PAGE))) * PAGE
    assert dump.word == (4 if pair.core.machine == elf.EM_386 else 8)
    assert dump.machine_type == pair.core.machine
    assert [note.kind for note in dump.notes] == ["prstatus", "vmcoreinfo"]
    assert_same(dump.machine, pair.reference)


def test_a_real_encoder_of_zstd(pair: Pair) -> None:
    path = pair.folder / "kdump-real-zstd"
    encoder = zstandard.ZstdCompressor().compress
    kdump.write(pair.core, [path], kdump.Options(compression="zstd", encoder=encoder))
    assert_same(Dump(path).machine, pair.reference)


@pytest.mark.parametrize("version", range(7))
def test_versions(pair: Pair, version: int) -> None:
    path = pair.folder / f"version-{version}"
    options = kdump.Options(
        version=version, vmcoreinfo=b"CRASHTIME=7\n", eraseinfo=b"erase x\n", level=1
    )
    kdump.write(pair.core, [path], options)
    dump = Dump(path)
    texts = [note.fields["text"] for note in dump.notes if "text" in note.fields]
    expected = {
        3: ["CRASHTIME=7\n"],
        4: [VMCOREINFO.decode()],
        5: [VMCOREINFO.decode(), "erase x\n"],
        6: [VMCOREINFO.decode(), "erase x\n"],
    }
    assert texts == expected.get(version, [])
    # Zeros are excluded, and never read as zeros.
    zero = next(mfn for mfn in range(PAGES) if is_held(mfn * PAGE) and not any(_page(pair, mfn)))
    level = "dump level 1" if version else "dump level not recorded"
    with pytest.raises(xk.MemoryFault, match=f"page excluded by makedumpfile, {level}"):
        dump.machine.u64(zero * PAGE)
    with pytest.raises(xk.MemoryFault, match="in no segment"):
        dump.machine.u64(HOLES[0][0])
    for mfn in range(PAGES):
        if is_held(mfn * PAGE) and any(_page(pair, mfn)):
            assert dump.machine.read(mfn * PAGE, PAGE) == _page(pair, mfn)


def _page(pair: Pair, mfn: int) -> bytes:
    return pair.reference.read(mfn * PAGE, PAGE)


def test_diskdump(pair: Pair) -> None:
    path = pair.folder / "diskdump"
    kdump.write(pair.core, [path], kdump.Options(signature=b"DISKDUMP", version=2))
    dump = Dump(path)
    assert dump.format == "diskdump-compressed dump"
    assert dump.notes == []
    assert_same(dump.machine, pair.reference)


def test_vmcoreinfo_apart_from_the_notes(pair: Pair) -> None:
    core = replace(pair.core, notes=[pair.core.notes[0][:1]])
    path = pair.folder / "vmcoreinfo"
    kdump.write(core, [path], kdump.Options(vmcoreinfo=VMCOREINFO))
    assert [note.kind for note in Dump(path).notes] == ["prstatus", "vmcoreinfo"]


def test_excluded_pages(pair: Pair) -> None:
    path = pair.folder / "excluded"
    excluded = range(0x100, 0x180, 3)
    kdump.write(pair.core, [path], kdump.Options(level=30, excluded=excluded))
    dump = Dump(path)
    assert dump.dump_level == 30
    assert Dump(str(pair.folder / "elf")).dump_level is None
    addresses = np.array([0x100000, 0x101000, 0x103FFF, HOLES[0][0], SIZE], dtype=np.uint64)
    status = np.empty(5, dtype=np.uint8)
    dump.machine.read_many(addresses, 1, status=status)
    assert [Status(int(number)) for number in status] == [
        Status.EXCLUDED,
        Status.OK,
        Status.EXCLUDED,
        Status.NO_SEGMENT,
        Status.NO_SEGMENT,
    ]
    with pytest.raises(xk.MemoryFault, match=r"0x103000.*excluded by makedumpfile, dump level 30"):
        dump.machine.read(0x102FFC, 8)
    assert dump.memory_size - dump.memory_held == len(excluded) * PAGE


def test_unwritten_pages(pair: Pair) -> None:
    path = pair.folder / "incomplete"
    kdump.write(pair.core, [path], kdump.Options(unwritten=5))
    dump = Dump(path)
    assert ["incomplete" in warning for warning in dump.warnings] == [True]
    assert dump.machine.read(SIZE - 6 * PAGE, PAGE) == _page(pair, PAGES - 6)
    with pytest.raises(xk.MemoryFault, match="the dump is incomplete, its page was not written"):
        dump.machine.u8(SIZE - 5 * PAGE)


def test_no_pages(pair: Pair) -> None:
    path = pair.folder / "empty"
    kdump.write(pair.core, [path], kdump.Options(excluded=range(PAGES)))
    dump = Dump(path)
    assert (dump.memory_held, dump.warnings) == (0, [])
    assert dump.machine.find(b"text", 0, SIZE) == []


def test_a_cut_file(pair: Pair) -> None:
    path = pair.folder / "cut"
    kdump.write(pair.core, [path])
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    dump = Dump(path)
    assert ["the file is cut" in warning for warning in dump.warnings] == [True]
    pages = np.arange(PAGES, dtype=np.uint64) * np.uint64(PAGE)
    status = np.empty(PAGES, dtype=np.uint8)
    dump.machine.read_many(pages, PAGE, status=status)
    # One page, or several with the same data.
    assert 1 <= np.count_nonzero(status == Status.TRUNCATED) < 1000
    path.write_bytes(whole[: 3 * PAGE - 1])
    assert any("within its bitmaps" in warning for warning in Dump(path).warnings)


def _bitmap(path: Path) -> tuple[bytearray, int]:
    """A dump of one file, and where its second bitmap is."""
    raw = bytearray(path.read_bytes())
    # The headers and the notes are before the first page of the bitmaps, of which there are two.
    (sub_blocks,) = struct.unpack_from("<I", raw, (424 if b"x86_64" in raw[:400] else 412) + 8)
    return raw, (1 + sub_blocks + 1) * PAGE


@pytest.mark.parametrize("compression", ["raw", "zlib"])
@pytest.mark.parametrize("pfn", [0, 7, 900, PAGES - 1])
def test_a_wrong_bit_of_the_bitmap(pair: Pair, pfn: int, compression: str) -> None:
    path = pair.folder / "bit"
    kdump.write(pair.core, [path], compression=compression)
    whole = Dump(path)
    whole.machine.u8(0)
    assert whole.warnings == []
    raw, at = _bitmap(path)
    raw[at + pfn // 8] ^= 1 << pfn % 8
    path.write_bytes(raw)
    dump = Dump(path)
    _ = dump.memory_held
    (warning,) = dump.warnings
    assert "the bitmap has" in warning
    assert "a bit is wrong" in warning
    # Pages with a bit, but without a descriptor of their own.
    raw[at + pfn // 8] ^= 1 << pfn % 8
    raw[at + HOLES[0][0] // PAGE // 8] ^= 1 << HOLES[0][0] // PAGE % 8
    path.write_bytes(raw)
    dump = Dump(path)
    _ = dump.machine.find(b"text", 0, SIZE)
    assert ["a bit is wrong" in warning for warning in dump.warnings] == [True]


def test_a_counted_bitmap_is_not_kept(pair: Pair) -> None:
    """A bitmap of a machine of 1 TiB has 32 MiB, and there are two."""
    path = pair.folder / "large"
    kdump.write(pair.core, [path])
    raw, at = _bitmap(path)
    pages = 1 << 28
    is_64_bit = b"x86_64" in raw[:400]
    struct.pack_into("<2I", raw, 436 if is_64_bit else 424, 2 * pages // 8 // PAGE, pages)
    # From version 6 on also in 64 bits.
    struct.pack_into("<Q", raw, PAGE + (96 if is_64_bit else 72), pages)
    with path.open("wb") as file:
        file.write(raw[: at - PAGE])
        file.truncate(at - PAGE + 2 * pages // 8 + PAGE)
    dump = Dump(path)
    before = _mapped_bytes()
    assert (dump.memory_held, dump.memory_size) == (0, 0)
    assert _mapped_bytes() - before < 8 << 20


def _mapped_bytes() -> int:
    """Bytes of files that are mapped, and count as memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("RssFile:")]
    return int(found) << 10


def test_the_page_of_zeros_comes_first(pair: Pair) -> None:
    """QEMU stores it before the data of the first page, even if no page refers to it."""
    path = pair.folder / "zeros"
    kdump.write(pair.core, [path], compression="raw")
    raw, at = _bitmap(path)
    first = at + PAGE
    count = (struct.unpack_from("<Q", raw, first)[0] - first) // 24
    for i in range(count):
        (offset,) = struct.unpack_from("<Q", raw, first + 24 * i)
        struct.pack_into("<Q", raw, first + 24 * i, offset + PAGE)
    raw[first + 24 * count : first + 24 * count] = bytes(PAGE)
    path.write_bytes(raw)
    dump = Dump(path)
    assert_same(dump.machine, pair.reference)
    assert dump.warnings == []
    path.write_bytes(raw[:-10])
    assert ["the file is cut" in warning for warning in Dump(path).warnings] == [True]


def test_corrupt_pages(pair: Pair) -> None:
    path = pair.folder / "corrupt"
    for compression, (flag, _) in CODECS.items():
        kdump.write(pair.core, [path], compression=compression)
        raw = bytearray(path.read_bytes())
        data = 4 * PAGE
        descriptors = [
            (at, *struct.unpack_from("<QII", raw, at)) for at in range(data, data + 24 * 150, 24)
        ]
        at, offset, size, _ = next(found for found in descriptors if found[3] == flag)
        pfn = (at - data) // 24
        for broken in (
            (offset, size - 1, flag),
            (offset, size, 0x40),
            (offset, size, 0),
            (offset, PAGE + 1, flag),
            (0, 0, 0),
        ):
            struct.pack_into("<QII", raw, at, *broken)
            path.write_bytes(raw)
            status = np.empty(1, dtype=np.uint8)
            dump = Dump(path)
            dump.machine.read_many(np.array([pfn * PAGE], dtype=np.uint64), 8, status=status)
            assert status[0] == Status.CORRUPT_PAGE
            with pytest.raises(xk.MemoryFault, match="is corrupt"):
                dump.machine.read(pfn * PAGE, PAGE)


def test_other_machines_are_refused(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "s390x"
    kdump.write(pair.core, [path], kdump.Options(machine="s390x"))
    with pytest.raises(xk.DumpError, match="a machine of x86, found s390x"):
        xk.open(path)
    # makedumpfile -X leaves the name empty.
    kdump.write(pair.core, [path], kdump.Options(machine=""))
    assert_same(xk.open(path).machine, pair.reference)


def _split(pair: Pair, folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"part{i}" for i in range(count)]
    kdump.write(pair.core, paths, kdump.Options(level=4))
    return paths


def test_split_dumps(pair: Pair, tmp_path: Path) -> None:
    paths = _split(pair, tmp_path)
    for given in (paths, paths[::-1], [paths[1]], [paths[2], paths[0], paths[1]]):
        dump = xk.open(given)
        assert dump.warnings == []
        assert dump.native.format == "split kdump-compressed dump"
        assert dump.path == str(given[0])
        assert_same(dump.machine, pair.reference)
    assert dump.native.size == sum(path.stat().st_size for path in paths)


def test_parts_of_another_dump_are_not_taken(pair: Pair, tmp_path: Path) -> None:
    paths = _split(pair, tmp_path)
    kdump.write(pair.core, [tmp_path / "x", paths[1]], kdump.Options(vmcoreinfo=b"CRASHTIME=2\n"))
    (tmp_path / "other").write_bytes(b"KDUMP   ")
    with pytest.raises(xk.DumpError, match="expected a part of the same split dump"):
        xk.open(paths)
    assert any("is missing" in warning for warning in xk.open(paths[0]).warnings)


def test_parts_that_are_given_twice(pair: Pair, tmp_path: Path) -> None:
    paths = _split(pair, tmp_path)
    once = xk.open(paths).native
    dump = xk.open([*paths, paths[1], *[paths[2]] * 5]).native
    assert dump.memory_held == once.memory_held
    warnings = dump.warnings
    assert len(warnings) == 6
    assert all("another part of the split dump has the same pages" in text for text in warnings)
    assert_same(dump.machine, pair.reference)


def test_too_many_parts(pair: Pair, tmp_path: Path) -> None:
    paths = _split(pair, tmp_path)
    xk.open([paths[0]] * 256)
    with pytest.raises(xk.DumpError, match="expected at most 256 parts of a split dump, found 257"):
        xk.open([paths[0]] * 257)


def test_missing_parts(pair: Pair, tmp_path: Path) -> None:
    paths = _split(pair, tmp_path)
    paths[1].unlink()
    dump = xk.open(paths[0])
    (warning,) = dump.warnings
    assert "a part of the split dump is missing: pages 0x400 to 0x7ff" in warning
    assert dump.machine.read(0, PAGE) == _page(pair, 0)
    assert dump.machine.read(SIZE - PAGE, PAGE) == _page(pair, PAGES - 1)
    with pytest.raises(xk.MemoryFault, match="in a part of the split dump that is not open"):
        dump.machine.u8(0x400 * PAGE)
    with pytest.raises(xk.MemoryFault, match="in no segment"):
        dump.machine.u8(0x500 * PAGE)
    status = np.empty(1, dtype=np.uint8)
    dump.machine.read_many(np.array([0x400 * PAGE], dtype=np.uint64), 8, status=status)
    assert status[0] == Status.MISSING_PART


def test_parts_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_dump(tmp_path / "one", "modern", format="kdump-split")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = [str(shutil.move(f"{made.vmcore}.{i}", elsewhere)) for i in (2, 3)]
    parts = [str(made.vmcore), *moved]
    assert main(["bt", str(made.vmlinux), *parts, "1"]) == 0
    whole, errors = capsys.readouterr()
    assert 'COMMAND: "systemd"' in whole
    assert errors == ""
    assert main(["domains", *parts]) == 0
    assert "aiko" in capsys.readouterr().out
    assert main(["domains", parts[0]]) == 1
    assert "a part of the split dump is missing" in capsys.readouterr().err


@pytest.mark.parametrize("contents", ["elf", "kdump"])
def test_flattened(pair: Pair, contents: str, tmp_path: Path) -> None:
    path = tmp_path / contents
    if contents == "elf":
        pair.core.write(path)
    else:
        kdump.write(pair.core, [path])
    whole = path.read_bytes()
    path.write_bytes(flattened.flatten(whole))
    dump = Dump(path)
    assert dump.format.startswith("flattened ")
    assert dump.warnings == []
    assert [note.kind for note in dump.notes] == ["prstatus", "vmcoreinfo"]
    assert_same(dump.machine, pair.reference)
    # Any order, with stale blocks that later ones replace.
    chance = random.Random(3)
    stale = [(chance.randrange(len(whole) - 999), chance.randbytes(999)) for _ in range(300)]
    blocks = [(at, whole[at : at + 5000]) for at in range(0, len(whole), 5000)]
    chance.shuffle(blocks)
    path.write_bytes(flattened.pack(stale + blocks))
    assert_same(Dump(path).machine, pair.reference)
    # What the end of a cut file had is missing, not zeros.
    last = blocks[-1][0]
    path.write_bytes(flattened.pack(blocks, is_whole=False)[:-5000])
    try:
        cut = Dump(path)
    except xk.DumpError:
        assert last < 3 * PAGE
        return
    assert any("no end mark" in warning for warning in cut.warnings)
    for page in range(0, SIZE, PAGE):
        try:
            assert cut.machine.read(page, PAGE) == pair.reference.read(page, PAGE)
        except xk.MemoryFault:
            continue


def test_flattened_parts(pair: Pair, tmp_path: Path) -> None:
    paths = _split(pair, tmp_path)
    for path in paths[1:]:
        path.write_bytes(flattened.flatten(path.read_bytes()))
    for given in (paths[::-1], [paths[0]], [paths[1]]):
        assert_same(xk.open(given).machine, pair.reference)


@pytest.mark.parametrize("compression", ["raw", *CODECS])
def test_flattened_compressions(pair: Pair, compression: str, tmp_path: Path) -> None:
    path = tmp_path / compression
    kdump.write(pair.core, [path], compression=compression)
    path.write_bytes(flattened.flatten(path.read_bytes()))
    assert_same(Dump(path).machine, pair.reference)


@pytest.mark.parametrize("is_flattened", [False, True])
def test_vmcoreinfo_of_header_version_3(pair: Pair, is_flattened: bool, tmp_path: Path) -> None:
    """Version 3 has VMCOREINFO, but no notes yet."""
    path = tmp_path / "version-3"
    kdump.write(pair.core, [path], kdump.Options(version=3, vmcoreinfo=VMCOREINFO))
    if is_flattened:
        path.write_bytes(flattened.flatten(path.read_bytes()))
    dump = Dump(path)
    (note,) = dump.notes
    assert note.fields["text"] == VMCOREINFO.decode()
    assert_same(dump.machine, pair.reference)


@pytest.mark.parametrize("is_flattened", list(itertools.product([False, True], repeat=3)))
def test_parts_in_any_order(pair: Pair, is_flattened: tuple[bool, ...], tmp_path: Path) -> None:
    """Each part flattened or not."""
    paths = _split(pair, tmp_path)
    for path, flat in zip(paths, is_flattened, strict=True):
        if flat:
            path.write_bytes(flattened.flatten(path.read_bytes()))
    for given in itertools.permutations(paths):
        dump = xk.open(given)
        assert dump.warnings == []
        for address in (0, 0x3FFFF0, 0x7FFFF0, SIZE - 32):
            # The second and the third lie in two parts.
            assert dump.machine.read(address, 32) == pair.reference.read(address, 32)


def test_gaps_of_a_flattened_file_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "gaps"
    head = elf.core_head(
        elf.ELF64,
        elf.EM_X86_64,
        [elf.Segment(elf.PT_LOAD, PAGE, 0, 1 << 50, 1 << 50)],
    )
    path.write_bytes(flattened.pack([(0, head), (1 << 55, b"end")]))
    dump = Dump(path)
    assert any("far apart" in warning for warning in dump.warnings)
    assert dump.memory_held == 0


@pytest.mark.parametrize(
    ("starts", "overlap"), [((0x3000, 0x3800), 0x3800), ((0x3800, 0x3000), 0x3800)]
)
def test_overlapping_lime_ranges(tmp_path: Path, starts: tuple[int, int], overlap: int) -> None:
    path = tmp_path / "lime"
    with path.open("wb") as file:
        for start, byte in zip((*starts, 0x9000), b"abc", strict=True):
            file.write(struct.pack("<IIQQ8x", 0x4C694D45, 1, start, start + PAGE - 1))
            file.write(bytes([byte]) * PAGE)
    dump = Dump(path)
    (warning,) = [text for text in dump.warnings if "overlap" in text]
    assert f"first at {overlap:#x}: of several, the first in the file is used" in warning
    assert dump.machine.read(starts[0], PAGE) == b"a" * PAGE
    assert dump.machine.read(0x9000, PAGE) == b"c" * PAGE
    assert dump.memory_held <= 3 * PAGE


@pytest.mark.parametrize("kind", ["lime", "raw"])
def test_images(pair: Pair, kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    with path.open("wb") as file:
        getattr(images, kind)(pair.core, file)
    if kind == "raw":
        with pytest.raises(xk.DumpError, match="--format raw takes a file for plain memory"):
            xk.open(path)
        space = xk.open(path, format="raw").machine
        held = [page * PAGE for page in range(PAGES) if is_held(page * PAGE)]
        assert all(space.read(at, PAGE) == pair.reference.read(at, PAGE) for at in held)
        assert space.read(HOLES[0][0], PAGE) == bytes(PAGE)
        return
    dump = xk.open(path)
    assert (dump.native.format, dump.warnings) == ("LiME image", [])
    assert_same(dump.machine, pair.reference)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert any("the file is cut" in warning for warning in xk.open(path).warnings)
    path.write_bytes(whole + b"x" * 40)
    assert any("is corrupt" in warning for warning in xk.open(path).warnings)


def test_many_threads(pair: Pair) -> None:
    path = pair.folder / "threads"
    kdump.write(pair.core, [path], compression="lzo")
    space = Dump(path, cache_size=64 * PAGE).machine
    held = [page * PAGE for page in range(PAGES) if is_held(page * PAGE)]

    def read(seed: int) -> bool:
        chance = random.Random(seed)
        addresses = [chance.choice(held) + chance.randrange(PAGE - 8) for _ in range(3000)]
        return all(space.u64(at) == pair.reference.u64(at) for at in addresses)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_batch_decodes_each_page_once(pair: Pair, threads: int) -> None:
    """In any order of the addresses, and with a cache of no more than some pages."""
    path = pair.folder / "once"
    kdump.write(pair.core, [path], compression="zlib")
    stored = _stored_pages(pair)
    addresses = [
        page * PAGE + at
        for page in range(PAGES)
        if is_held(page * PAGE) and page not in stored
        for at in range(0, PAGE, 512)
    ]
    random.Random(5).shuffle(addresses)
    batch = np.array(addresses, dtype=np.uint64)
    pages = len(addresses) // 8
    dump = Dump(path, cache_size=16 * PAGE)
    rows = dump.machine.read_many(batch, 8, threads=threads)
    assert (rows == pair.reference.read_many(batch, 8)).all()
    # A page at the end of a thread's range may be decoded by the next one, too.
    assert pages <= dump.pages_decoded <= pages + len(batch) // 1024
    # Without the order of the batch each read decodes a page.
    unordered = Dump(path, cache_size=16 * PAGE)
    for address in addresses[:1000]:
        unordered.machine.u64(address)
    assert unordered.pages_decoded > 900
    assert Dump(pair.folder / "elf").pages_decoded == 0


@pytest.mark.parametrize(("threads", "cache"), [(1, 0), (1, 16), (2, 1 << 14)])
@pytest.mark.parametrize("size", [1, 8, 100])
def test_a_batch_holds_the_pages_of_words_in_any_order(
    pair: Pair, threads: int, cache: int, size: int
) -> None:
    """Of compressed, stored and missing pages; some rows go on in the next page."""
    path = pair.folder / "held"
    kdump.write(pair.core, [path], compression="zlib")
    chance = random.Random(size)
    pages = chance.sample(range(PAGES + 3), 300)
    addresses = [chance.choice(pages) * PAGE + chance.randrange(PAGE) for _ in range(20_000)]
    batch = np.array(addresses, dtype=np.uint64)
    status, expected = (np.full(len(batch), 99, np.uint8) for _ in range(2))
    dump = Dump(path, cache_size=cache * PAGE)
    rows = dump.machine.read_many(batch, size, status=status, threads=threads)
    assert (rows == pair.reference.read_many(batch, size, status=expected)).all()
    assert ((status == 0) == (expected == 0)).all()
    assert 0 < (status == 0).sum() < len(batch)
    if size == 1:
        stored = _stored_pages(pair)
        within = {page for page in pages if is_held(page * PAGE)} - stored
        # Two threads may meet a page at the same time.
        assert len(within) <= dump.pages_decoded <= len(within) * threads


@pytest.mark.parametrize("bad", [1, 2, 7, 14])
def test_a_read_fails_at_the_first_page_that_is_corrupt(bad: int, tmp_path: Path) -> None:
    """Of small pages, whose compressed bytes are read together: those before it can be read."""
    count = 16
    memory = MachineMemory(count * PAGE, ())
    contents = b"".join(struct.pack("<Q", mfn + 1) * 512 for mfn in range(count))
    memory.write(0, contents)
    path = tmp_path / "kdump"
    kdump.write(Core(elf.ELF64, elf.EM_X86_64, memory, []), [path], compression="zlib")
    raw = path.read_bytes()
    # Two frames of zstd, of which the second one, from the data of a page on, is damaged.
    (first,) = struct.unpack_from("<Q", raw, 4 * PAGE)
    (end,) = struct.unpack_from("<Q", raw, 4 * PAGE + 24 * bad)
    assert first < end < first + PAGE
    frames = [zstd_frame(iter([part])) for part in (raw[:end], raw[end:])]
    damaged = frames[1][:6] + b"\xff\xff\xff" + frames[1][9:]
    table = seek_table([(len(frames[0]), end), (len(damaged), len(raw) - end)])
    path.write_bytes(frames[0] + damaged + table)
    for start in range(bad):
        found = Dump(path).machine
        with pytest.raises(xk.MemoryFault, match="is corrupt") as raised:
            found.read(start * PAGE, (count - start) * PAGE)
        assert raised.value.address == bad * PAGE
        size = (bad - start) * PAGE
        assert found.read(start * PAGE, size) == contents[start * PAGE : bad * PAGE]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_pass_decodes_each_page_once(pair: Pair, threads: int) -> None:
    path = pair.folder / "pass"
    kdump.write(pair.core, [path], compression="zlib")
    stored = _stored_pages(pair)
    dump = Dump(path, cache_size=0)
    for start, end in ((0, 0x9F000), (0x100003, 0x500000), (0x703000, SIZE - 5)):
        before = dump.pages_decoded
        found = bytearray(end - start)
        dump.machine.readinto(start, found, threads=threads)
        assert found == pair.reference.read(start, end - start)
        pages = set(range(start // PAGE, -(-end // PAGE))) - stored
        # Pages at the ends of pieces of 1 MiB, which do not start on a page.
        cuts = (end - start) >> 20 if start % PAGE else 0
        assert len(pages) <= dump.pages_decoded - before <= len(pages) + cuts


def _descriptors(raw: bytes | bytearray, at: int) -> dict[int, tuple[int, int, int]]:
    """Offset, size and flags of the data of each page, by the offset of its descriptor.

    The second bitmap is at ``at``.
    """
    first = at + PAGE
    bits = int.from_bytes(raw[at : at + PAGE], "little")
    places = range(first, first + 24 * bits.bit_count(), 24)
    return {place: struct.unpack_from("<QII", raw, place) for place in places}


@pytest.mark.parametrize("compression", CODECS)
@pytest.mark.parametrize("share", [0.1, 1])
def test_a_pass_over_data_in_any_order(pair: Pair, compression: str, share: float) -> None:
    """Data of pages that do not adjoin, some of it before that of earlier pages."""
    path = pair.folder / "shuffled"
    kdump.write(pair.core, [path], compression=compression)
    raw, at = _bitmap(path)
    chance = random.Random(compression)
    moved = [found for found in _descriptors(raw, at).items() if chance.random() < share]
    chance.shuffle(moved)
    for place, (offset, size, flags) in moved:
        struct.pack_into("<QII", raw, place, len(raw), size, flags)
        raw += raw[offset : offset + size]
    path.write_bytes(raw)
    assert_same(Dump(path, cache_size=0).machine, pair.reference)


def test_a_pass_ends_where_the_file_ends(pair: Pair) -> None:
    """Within the data of pages that were read ahead, or within their descriptors."""
    path = pair.folder / "cut-pass"
    kdump.write(pair.core, [path], compression="zlib")
    raw, at = _bitmap(path)
    found = list(_descriptors(raw, at).items())
    pages = [page for page in range(PAGES) if is_held(page * PAGE)]
    offsets = [offset for _, (offset, _, _) in found]
    # Pages whose data is behind that of all pages before them: equal pages share theirs.
    own = [number for number in range(100, 600) if offsets[number] > max(offsets[:number])]
    for number in own[::100]:
        place, (offset, size, _) = found[number]
        last = pages[number] * PAGE
        start = last - 25 * PAGE
        # The data of all pages is behind the last descriptor.
        for end, fault in ((offset + size - 1, last), (offset + 1, last), (place + 1, start)):
            path.write_bytes(raw[:end])
            machine = Dump(path, cache_size=0).machine
            with pytest.raises(xk.MemoryFault, match=f"{fault:#x} lies .*past the end"):
                machine.read(start, last + 40 * PAGE - start)
            if fault > start:
                expected = pair.reference.read(start, fault - start)
                assert machine.read(start, fault - start) == expected


def test_a_pass_keeps_what_is_cached(pair: Pair) -> None:
    path = pair.folder / "kept"
    kdump.write(pair.core, [path], compression="zlib")
    dump = Dump(path, cache_size=64 * PAGE)
    stored = _stored_pages(pair)
    used = [page for page in range(0x703, PAGES) if page not in stored][:8]
    for page in used:
        dump.machine.u64(page * PAGE)
    dump.machine.read(0x100000, 0x400000)
    before = dump.pages_decoded
    for page in used:
        dump.machine.u64(page * PAGE)
    assert dump.pages_decoded == before


def _stored_pages(pair: Pair) -> set[int]:
    """The pages that do not become smaller by zlib."""
    held = (page for page in range(PAGES) if is_held(page * PAGE))
    return {page for page in held if len(zlib.compress(_page(pair, page), 1)) >= PAGE}


@pytest.mark.parametrize(
    "name", [name for name in FORMATS if name not in ("lime", "raw") and "-save" not in name]
)
def test_commands_print_the_same(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_dump(tmp_path, "modern", format=name)
    assert main(["bt", "--all", str(made.vmlinux), str(made.vmcore)]) == 0
    found, errors = capsys.readouterr()
    assert errors == ""
    write_dump(tmp_path, "modern")
    assert main(["bt", "--all", str(made.vmlinux), str(made.vmcore)]) == 0
    assert found == capsys.readouterr().out


def test_cache_size(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pair.folder / "cache-size"
    kdump.write(pair.core, [path])
    monkeypatch.setenv("XKDUMP_CACHE_SIZE", "128K")
    assert_same(xk.open(path).machine, pair.reference)
    monkeypatch.setenv("XKDUMP_CACHE_SIZE", "lots")
    with pytest.raises(xk.DumpError, match="XKDUMP_CACHE_SIZE: not a size: 'lots'"):
        xk.open(path)
    assert main(["notes", str(path)]) == 3
    assert "XKDUMP_CACHE_SIZE" in capsys.readouterr().err
    with pytest.raises(ValueError, match="at least one file"):
        xk.open([])
    with pytest.raises(ValueError, match='"raw" or None'):
        Dump(path, format="elf")  # type: ignore[arg-type]


#: What /usr/bin/python3 with libkdumpfile's module prints: a checksum of each page, or "-".
_LIBKDUMPFILE = """
import sys, zlib, kdumpfile
context = kdumpfile.kdumpfile(sys.argv[1])
for pfn in range(int(sys.argv[2])):
    try:
        print(zlib.crc32(context.read(kdumpfile.KDUMP_MACHPHYSADDR, pfn * 4096, 4096)))
    except Exception:
        print("-")
"""


@pytest.fixture(scope="module")
def libkdumpfile() -> Callable[[Path], list[str]]:
    python = Path("/usr/bin/python3")
    probe = [str(python), "-c", "import kdumpfile"]
    if not python.exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("python3-libkdumpfile is not installed")

    def pages(path: Path) -> list[str]:
        command = [str(python), "-c", _LIBKDUMPFILE, str(path), str(PAGES)]
        environment = {"PATH": os.environ.get("PATH", "")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return str(done.stdout).split()

    return pages


@pytest.mark.parametrize("compression", ["raw", *CODECS])
def test_libkdumpfile_reads_the_same(
    pair: Pair, compression: str, libkdumpfile: Callable[[Path], list[str]]
) -> None:
    path = pair.folder / f"peer-{compression}"
    kdump.write(
        pair.core, [path], kdump.Options(compression=compression, level=1, excluded=range(50, 60))
    )
    space = Dump(path).machine
    expected = []
    for page in range(PAGES):
        try:
            expected.append(str(zlib.crc32(space.read(page * PAGE, PAGE))))
        except xk.MemoryFault:
            expected.append("-")
    assert libkdumpfile(path) == expected


def test_an_empty_block_ends_a_flattened_file(tmp_path: Path) -> None:
    """A hole of a terabyte would be a block of no bytes at offset 0, every 16 bytes."""
    path = tmp_path / "vmcore"
    path.write_bytes(flattened.pack([(0, b"\x7fELF")], is_whole=False))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(xk.DumpError):
        xk.open(path)


def test_a_copy_of_a_part_is_reported(tmp_path: Path) -> None:
    write_dump(tmp_path, format="kdump-split")
    copy = tmp_path / "vmcore.3.old"
    copy.write_bytes((tmp_path / "vmcore.3").read_bytes())
    warnings = xk.open(tmp_path / "vmcore").warnings
    assert any("vmcore.3.old are the same part" in text for text in warnings), warnings
