"""Location of a kernel by hostile notes and roots."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import xenkdump_fast as xk
from xenkdump_fast._native import Dump, Image
from xenkdump_fast.limits import MAX_KASLR_OFFSETS, MAX_ROOTS, MAX_VMCOREINFO_NOTE
from xenkdump_fast.linux.boot import claims, kaslr, vmcoreinfo
from xenkdump_fast.linux.boot.image import BANNER
from xenkdump_fast.linux.boot.locate import locate
from xenkdump_fast.linux.boot.roots import Banners, Root, Roots
from xenkdump_fast.xen import memory, p2m_sources
from xenkdump_forge import write_dump


@pytest.mark.parametrize("number", ["-5", "8000000000000000", "f" * 16, "f" * 40, "no number"])
def test_invalid_kaslr_offsets(number: str, tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path / "dump", like="modern")
    dump = xk.open(str(synthetic.vmcore))
    domain = dump.domain(0, str(synthetic.vmlinux))
    native, image = dump.native, Image(str(synthetic.vmlinux))
    roots = Roots(native, image, [])
    facts = {"KERNELOFFSET": number}
    found = locate(roots, domain.p2m, [claims.of_text("a note", facts)], domain.physical)
    assert found.slide == 0
    claimed = claims.of_text("a note", facts).slide
    warning = f"a note claims KASLR offset {claimed:#x}; the kernel was found at KASLR offset 0x0"
    assert found.warnings == ((warning,) if claimed else ())
    # The physical address of the banner is that of another frame, or of none.
    for phys_base in (1 << 21, (1 << 63) - 1, -1 << 63):
        facts["NUMBER(phys_base)"] = f"{phys_base}"
        claim = claims.of_text("a note", facts)
        assert locate(roots, domain.p2m, [claim], domain.physical)[:5] == (*found[:4], {})


def test_numbers_of_vmcoreinfo() -> None:
    facts = {"small": "-1", "large": str((1 << 64) - 1), "larger": str(1 << 64), "text": "x"}
    assert [vmcoreinfo.number(facts, key) for key in (*facts, "none")] == [
        -1,
        (1 << 64) - 1,
        None,
        None,
        None,
    ]


def test_extents_of_vmcoreinfo() -> None:
    facts = {"none": "0", "pglist_data": "172160", "-": "-1", "no struct": str(1 << 45)}
    assert [vmcoreinfo.extent(facts, key) for key in facts] == [0, 172160, None, None]


def test_an_oversized_text() -> None:
    """A note of 8 MiB took 256 MiB when parsed."""
    text = "OSRELEASE=6.1\n" + "".join(f"{i:x}=\n" for i in range(1 << 16))
    assert len(text) > 4 * MAX_VMCOREINFO_NOTE
    facts = vmcoreinfo.parse(text)
    assert facts["OSRELEASE"] == "6.1"
    assert sum(len(key) + 2 for key in facts) < MAX_VMCOREINFO_NOTE + 10
    note = SimpleNamespace(kind="vmcoreinfo_xen", fields={"text": text})
    dump: Any = SimpleNamespace(notes=[note] * 9)
    xen = memory.vmcoreinfo(dump)
    assert set(xen) == set(facts)


def test_memory_at_the_end_of_the_address_space() -> None:
    """The dump may hold memory up to the last address."""
    reads = []

    def read(address: int, size: int) -> bytes:
        reads.append((address, size))
        if address + size > 1 << 64:
            raise xk.MemoryFault("outside the address space")
        raise xk.MemoryFault("not mapped")

    held = [SimpleNamespace(address=(1 << 64) - (9 << 20), size=9 << 20)]
    machine = SimpleNamespace(read=read, iter_mapped=lambda: held)
    dump: Any = SimpleNamespace(machine=machine, memory_held=1 << 62)
    assert list(kaslr.by_text(dump, cast(Image, None))) == []
    assert len(reads) == 3


class Keys:
    """Machine memory that repeats a text; counts the bytes that are read."""

    def __init__(self, text: bytes, held: list[tuple[int, int]]) -> None:
        self.text = text
        self.held = held
        self.searched = self.parsed = 0

    def iter_mapped(self) -> list[Any]:
        return [SimpleNamespace(address=address, size=size) for address, size in self.held]

    def read(self, address: int, size: int) -> bytes:
        self.searched += size
        return self._at(address, size)

    def cstring(self, address: int, limit: int) -> bytes:
        text = self._at(address, limit).partition(b"\0")[0]
        self.parsed += len(text)
        return text

    def _at(self, address: int, size: int) -> bytes:
        first = address % len(self.text)
        return (self.text * (size // len(self.text) + 2))[first : first + size]


def test_a_search_parses_each_byte_once() -> None:
    """Segments share their bytes, which are full of keys."""
    held = [(i << 32, 1 << 20) for i in range(64)]
    given = Keys(b"OSRELEASE=\nKERNELOFFSET=0\n", held)
    dump: Any = SimpleNamespace(machine=given, memory_held=1 << 20)
    assert list(kaslr.by_text(dump, cast(Image, None))) == []
    assert given.searched == 1 << 20
    assert 1 << 19 < given.parsed <= (1 << 20) + 4096


def test_a_text_without_nul_before_another() -> None:
    """A page may end with a text that has no NUL."""
    sought = b"OSRELEASE=6.1\nBUILD-ID=abc\nSYMBOL(_stext)=0\nKERNELOFFSET=1000000\n"
    given = Keys((b"OSRELEASE=5.10\nKERNELOFFSET=0\n" + sought).ljust(4096, b"\0"), [(0, 4096)])
    dump: Any = SimpleNamespace(machine=given, memory_held=1 << 20)
    image: Any = SimpleNamespace(build_id="abc")
    (claim,) = kaslr.by_text(dump, image)
    assert claim.slide == 0x1000000
    assert claim.facts["KERNELOFFSET"] == "1000000"


class CountedRoots:
    """A dump in which the root at address ``n`` maps the banner to frame ``n % 3``."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, str]] = []
        self.notes: list[SimpleNamespace] = []

    def virtual(self, root: int, paging: str) -> Any:
        def read(_: int, size: int) -> bytes:
            self.reads.append((root, paging))
            if paging != "x86_64":
                fault = xk.MemoryFault("not mapped")
                fault.reason = "not mapped"
                raise fault
            return BANNER[:size]

        return SimpleNamespace(read=read, translate=lambda _: root % 3 << 12)


def test_each_root_is_read_once() -> None:
    """Not once per P2M source: each of thousands of notes may refer to two sources."""
    dump: Any = CountedRoots()
    image: Any = SimpleNamespace(
        word=8, path="vmlinux", symbols=lambda: {"linux_banner": 0xFFFF_FFFF_8200_0000}
    )
    named = [Root(number, f"note {number}") for number in range(300)]
    roots = Roots(dump, image, named)
    found = [roots.banners(0xFFFF_FFFF_8200_0000) for _ in range(50)][-1]
    assert len(dump.reads) == 2 * len(named)
    by_frame = {frame: [root.address for root, _ in same] for frame, same in found.by_frame.items()}
    assert by_frame == {frame: [frame + 3 * i for i in range(4)] for frame in range(3)}
    assert [text.partition(":")[0] for text in found.refused] == [
        "note 0 0x0 (x86_64-la57)",
        "note 1 0x1 (x86_64-la57)",
    ]
    # The kernel's variables are the same through all roots of one kernel, but in a truncated dump
    # some roots map more memory than others.
    assert len(list(p2m_sources.by_cr3(dump, image, Roots(dump, image, named)))) == 3 * 4
    dump.reads.clear()
    # Real dumps have one CRASH_INFO note.
    fields = {"word": 8, "dom0_pfn_to_mfn_frame_list_list": 0x1234}
    dump.notes = [SimpleNamespace(kind="crash_info", fields=fields)] * 1000
    assert len(list(p2m_sources.by_frame_list(dump, image))) == 8
    endless = (Root(number, "a note") for number in range(1 << 20))
    Roots(dump, image, endless).banners(0)
    assert len(dump.reads) == 2 * MAX_ROOTS


def test_roots_of_other_domains_are_not_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The P2M of a domU that ran on the first pCPU was taken for dom0's: both ran one kernel."""
    banner = 0xFFFF_FFFF_8200_0000
    dump: Any = CountedRoots()
    image: Any = SimpleNamespace(word=8, path="vmlinux", symbols=lambda: {"linux_banner": banner})
    named = [Root(number, f"note {number}") for number in range(3)]

    def sources(own: list[Root]) -> list[p2m_sources.Source]:
        return list(p2m_sources.by_cr3(dump, image, Roots(dump, image, named), own))

    by_records = sources([Root(4, "a vCPU")])
    assert [source.detail for source in by_records] == [f"note {i}, x86_64" for i in (1, 0, 2)]
    assert all(source.verified for source in by_records)
    with pytest.raises(xk.AbsentError, match=r"note 0 0x0 is another domain's: .*mfn 0x0, .* 0x1"):
        by_records[1].open()
    # No root of the notes is the domain's.
    named.append(Root(3, "note 3"))
    del named[1]
    for source in sources([Root(4, "a vCPU")]):
        with pytest.raises(xk.AbsentError, match="another domain's"):
            source.open()
    # Without records: the frame list.
    p2m = SimpleNamespace(entry=lambda pfn: ("memory", 2) if pfn == 0x2000 else ("invalid", None))
    listed = p2m_sources.Source("list", "a note", lambda: cast(Any, p2m))
    monkeypatch.setattr(p2m_sources, "by_frame_list", lambda *_: iter([listed]))
    by_list = sources([])
    assert by_list[0].detail == "note 2, x86_64"
    with pytest.raises(xk.AbsentError, match="another domain's"):
        by_list[1].open()
    monkeypatch.setattr(p2m_sources, "by_frame_list", lambda *_: iter(()))
    assert [source.verified for source in sources([])] == [False] * 3


def test_kaslr_offsets_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of thousands of notes by QEMU may refer to another handler."""
    synthetic = write_dump(tmp_path / "dump", like="modern")
    native, image = Dump(str(synthetic.vmcore)), Image(str(synthetic.vmlinux))
    slides = iter(range(1 << 21, 1 << 40, 1 << 21))
    monkeypatch.setattr(kaslr, "idts", lambda _: iter([(0, 0)] * 1000))
    monkeypatch.setattr(kaslr, "by_idt", lambda *_: next(slides))
    for method in ("by_roots", "by_text", "by_image"):
        monkeypatch.setattr(kaslr, method, lambda *_: ())
    roots = Roots(native, image, [])
    reads = []

    def banners(at: int, _: int | None) -> Banners:
        reads.append(at)
        return Banners({}, [])

    monkeypatch.setattr(roots, "banners", banners)
    with pytest.raises(xk.AbsentError):
        locate(roots, None, [], None)
    assert len(reads) == len(set(reads)) == 1 + MAX_KASLR_OFFSETS


@pytest.mark.parametrize(
    ("cr3", "idt", "expected"),
    [
        # i386, in user space with page table isolation (seen with Linux 5.10): the kernel's first.
        (0x1CD9000, 0xFF400000, [0x1CD8000, 0x1CD9000]),
        (0x1CD8000, 0xFF400000, [0x1CD8000]),
        # PAE without isolation: a root is aligned to 32 bytes.
        (0x1CD90A0, 0xFF400000, [0x1CD8000, 0x1CD90A0]),
        # x86_64: the low bits are the PCID.
        (0x1CD9801, 0xFFFF_FE00_0000_0000, [0x1CD8000, 0x1CD9000]),
        (0x1CD8006, 0xFFFF_FE00_0000_0000, [0x1CD8000]),
        (0x1000, 0xFF400000, [0x1000]),
        (0, 0xFF400000, []),
    ],
)
def test_the_roots_of_qemu_notes(cr3: int, idt: int, expected: list[int]) -> None:
    data = bytearray(8 + 18 * 8 + 10 * 24)
    at = 8 + 18 * 8 + 9 * 24 + 16
    data[at : at + 8] = idt.to_bytes(8, "little")
    note = SimpleNamespace(kind="qemu", fields={"cr0": 1 << 31, "cr3": cr3, "cr4": 0}, data=data)
    dump: Any = SimpleNamespace(notes=[note])
    assert [root.address for root in p2m_sources.roots(dump)] == expected
