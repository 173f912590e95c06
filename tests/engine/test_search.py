"""Searches: `find` finds all that `read` returns, and an early stop is reported."""

import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from xenkdump_fast._native import AddressSpace, Dump, DumpError

PAGE = 4096
TOP = 2**64


def vmcore(
    path: Path,
    segments: list[tuple[int, bytes]],
    *,
    note: bytes = b"",
    machine: int = 62,
) -> Dump:
    """An ELF64 vmcore with these segments and the bytes of a PT_NOTE."""
    count = len(segments) + 1
    at = 64 + 56 * count
    headers = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(note), len(note), 0)
    body = note
    for start, data in segments:
        size = len(data)
        headers += struct.pack("<IIQQQQQQ", 1, 7, at + len(body), 0, start, size, size, 0)
        body += data
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    path.write_bytes(ident + header + headers + body)
    return Dump(path)


def find(space: AddressSpace, start: int, end: int, **options: int) -> list[int]:
    """The addresses found; the search must not stop early."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return space.find(b"NEEDLE", start, end, **options)


def test_partly_held_pages(tmp_path: Path) -> None:
    low, high = b"NEEDLE".rjust(0x9EC00, b"."), b"NEEDLE".ljust(0x800, b".")
    dump = vmcore(tmp_path / "vmcore", [(0x1000, low), (0x100400, high), (0x200000, high)])
    for space in (dump.machine, dump.physical(None)):
        assert space.read(0x100400, 6) == b"NEEDLE"
        assert find(space, 0x100000, 0x110000) == [0x100400]
        assert find(space, 0, TOP) == [0x1000 + 0x9EC00 - 6, 0x100400, 0x200000]


def test_holes_are_not_charged(tmp_path: Path) -> None:
    dump = vmcore(tmp_path / "vmcore", [(0, bytes(64)), (2 << 30, b"NEEDLE")])
    assert find(dump.machine, 0, TOP) == [2 << 30]
    assert find(dump.machine, 0, TOP, most=200) == [2 << 30]


def test_the_last_byte(tmp_path: Path) -> None:
    dump = vmcore(tmp_path / "vmcore", [(TOP - 6, b"NEEDLE")])
    assert find(dump.machine, 0, TOP) == find(dump.machine, TOP - 6, TOP) == [TOP - 6]
    assert find(dump.machine, 0, TOP - 1) == []
    assert dump.machine.find(b"E", TOP - 1, TOP) == [TOP - 1]
    with pytest.raises(OverflowError, match=r"2\*\*64"):
        dump.machine.find(b"E", 0, TOP + 1)


def test_the_end_of_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "vmcore"
    dump = vmcore(path, [(0x1000, b"NEEDLE".rjust(PAGE + 0x100, b".") + bytes(2 * PAGE))])
    size = path.stat().st_size - 2 * PAGE
    with path.open("r+b") as file:
        file.truncate(size)
    place = 0x1000 + PAGE + 0x100 - 6
    # A dump that was opened before the truncation, and one opened after it.
    assert find(dump.machine, 0, TOP) == find(Dump(path).machine, 0, TOP) == [place]


def test_an_early_stop_is_reported(tmp_path: Path) -> None:
    memory = vmcore(tmp_path / "vmcore", [(0x1000, b"NEEDLE" * 1000)]).machine
    with pytest.warns(RuntimeWarning, match=r"stopped at 0x1"):
        assert len(memory.find(b"NEEDLE", 0, TOP, limit=9999, most=600)) == 100
    assert len(find(memory, 0, TOP, limit=10)) == 10
    for options in ({"limit": 9999, "most": 601}, {"limit": 7}):
        places: list[int] = []
        start: int | None = 0
        while start is not None:
            found = memory.search(b"NEEDLE", start, TOP, **options)
            places += found.addresses
            start = found.next
        assert places == [0x1000 + 6 * i for i in range(1000)]
    found = memory.search(b"NEEDLE", 0, TOP, limit=9999)
    assert (found.searched, found.next) == (6000, None)


#: Runs with too little address space for the results: as an array in Rust, and as Python objects.
_OUT_OF_MEMORY = """
import resource, sys
from xenkdump_fast._native import P2M, Dump
dump = Dump(sys.argv[1])
space, text, one, two = dump.machine, *(dump.virtual(n << 32, "x86_64") for n in (1, 2, 3))
one, two = (P2M.linear(dump, root, 0, 8, 1 << 26) for root in (one, two))
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]),) * 2)
most = 2**64 - 1
for call in (
    lambda: space.find(b"a", 0, 2**64, limit=most, most=most),
    lambda: space.search(b"a", 0, 2**64, limit=most, most=most).addresses,
    lambda: text.cstring(0, most),
    lambda: one.compare(two, limit=most).first,
):
    try:
        print(len(call()))
    except MemoryError:
        print("MemoryError")
"""


def everywhere(root: int, page: bytes) -> list[tuple[int, bytes]]:
    """Page tables at ``root`` that map one page to all addresses."""
    tables = [
        (root + level * PAGE, struct.pack("<Q", root + (level + 1) * PAGE | 3) * 512)
        for level in range(4)
    ]
    return [*tables, (root + 4 * PAGE, page)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("memory", [64 << 20, 600 << 20])
def test_results_larger_than_memory(tmp_path: Path, memory: int) -> None:
    path = tmp_path / "vmcore"
    segments = [(0, b"a" * (16 << 20)), *everywhere(1 << 32, b"a" * PAGE)]
    for number, mfn in ((2, 5), (3, 6)):
        segments += everywhere(number << 32, struct.pack("<Q", mfn) * 512)
    vmcore(path, segments)
    ran = subprocess.run(
        [sys.executable, "-c", _OUT_OF_MEMORY, path, str(memory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "MemoryError\n" * 4), ran.stderr


def test_little_address_space(tmp_path: Path) -> None:
    """A dump that would use most of the remaining address space is not mapped."""
    path = tmp_path / "vmcore"
    vmcore(path, [(0x1000, b"NEEDLE")])
    with path.open("r+b") as file:
        file.truncate(300 << 20)
    code = (
        "import sys; from xenkdump_fast._native import Dump; dump = Dump(sys.argv[1]);"
        "mapped = sys.argv[1] in open('/proc/self/maps').read();"
        "print(dump.machine.find(b'NEEDLE', 0, 2**64), mapped)"
    )
    for limit, mapped in ((500 << 20, False), (resource.RLIM_INFINITY, True)):
        ran = subprocess.run(
            [sys.executable, "-c", code, path],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=lambda limit=limit: resource.setrlimit(  # type: ignore[misc]
                resource.RLIMIT_AS, (limit, limit)
            ),
        )
        assert ran.stdout == f"[{0x1000}] {mapped}\n", ran.stderr


def test_partly_held_tables(tmp_path: Path) -> None:
    word = struct.pack
    dump = vmcore(tmp_path / "vmcore", [(0, word("<I", 0x1067)), (0x1000, word("<I", 0xA067))])
    space = dump.virtual(0, "x86")
    assert space.translate(0x123) == 0xA123
    ranges = space.iter_mapped()
    assert [(r.address, r.machine, r.size) for r in ranges] == [(0, 0xA000, PAGE)]
    assert ranges.missing == 2


def test_encrypted_memory(tmp_path: Path) -> None:
    """AMD SME: the bit is given by VMCOREINFO or as an argument."""
    mask = 1 << 47
    tables = [
        (0x1000 * level, struct.pack("<Q", 0x1000 * (level + 1) | mask | 0x67))
        for level in range(1, 5)
    ]
    text = f"OSRELEASE=6.1\nNUMBER(sme_mask)={mask}\n".encode()
    text = text.ljust(len(text) + 3 & ~3, b"\0")
    note = struct.pack("<3I12s", 11, len(text), 0, b"VMCOREINFO\0") + text
    segments = [*tables, (0x5000, b"NEEDLE")]
    recorded = vmcore(tmp_path / "recorded", segments, note=note)
    plain = vmcore(tmp_path / "plain", segments)
    for space in (
        recorded.virtual(0x1000 | mask, "x86_64"),
        plain.virtual(0x1000 | mask, "x86_64", encryption_mask=mask),
    ):
        assert (space.root, space.translate(0)) == (0x1000, 0x5000)
        assert space.read(0, 6) == b"NEEDLE"
        assert [(r.address, r.machine) for r in space.iter_mapped()] == [(0, 0x5000)]
        assert space.mapping(0).machine == 0x5000
    with pytest.raises(DumpError):
        plain.virtual(0x1000, "x86_64").translate(0)
    with pytest.raises(ValueError, match="address bit"):
        plain.virtual(0x1000, "x86_64", encryption_mask=3)


@pytest.mark.parametrize(("machine", "name"), [(183, "AARCH64"), (243, "RISCV"), (22, "S390")])
def test_other_architectures_are_rejected(tmp_path: Path, machine: int, name: str) -> None:
    with pytest.raises(DumpError, match=f"e_machine.*{machine}.*{name}"):
        vmcore(tmp_path / "vmcore", [(0, b"NEEDLE")], machine=machine)


def test_a_fragment_after_the_last_note(tmp_path: Path) -> None:
    note = struct.pack("<3I8s", 5, 0, 0, b"TEST\0\0\0")
    for rest, expected in ((b"", 0), (bytes(11), 0), (b"\5" + bytes(10), 1), (b"\5", 1)):
        dump = vmcore(tmp_path / "vmcore", [(0, b"x")], note=note + rest)
        assert len(dump.notes) == 1
        assert len(dump.warnings) == expected
        assert all(f"{len(rest)} bytes" in warning for warning in dump.warnings)


def test_other_threads_run_while_a_long_list_is_made(tmp_path: Path) -> None:
    """The GIL is needed for each int of the list, but not for all at once."""
    dump = vmcore(tmp_path / "vmcore", [(0, bytes(4 << 20))])
    found = dump.machine.search(b"\0", 0, TOP, limit=4 << 20)
    stamps: list[float] = []
    finished = threading.Event()

    def tick() -> None:
        while not finished.wait(0.001):
            stamps.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    ran = False
    for _ in range(10):  # the machine may be busy
        start = time.perf_counter()
        assert len(found.addresses) == 4 << 20
        end = time.perf_counter()
        ran = any(start < stamp < end for stamp in stamps)
        if ran:
            break
    finished.set()
    thread.join()
    assert ran


@pytest.mark.parametrize("name", ["find", "search"])
def test_ctrl_c(name: str, tmp_path: Path) -> None:
    """A search that would take many minutes ends when a signal's handler raises."""
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.truncate(4 << 40)
    dump = Dump(path, format="raw")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            getattr(dump.machine, name)(b"NEEDLE", 0, 4 << 40, most=4 << 40)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    dump.close()
