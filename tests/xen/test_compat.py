"""The table of what differs between versions of Xen."""

import re
import struct
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import xenkdump_fast
from xenkdump_fast import AbsentError
from xenkdump_fast._native import AddressSpace, MemoryFault
from xenkdump_fast.commands import check
from xenkdump_fast.xen import compat, console, header, m2p, pcpus, shared_info
from xenkdump_fast.xen.console_ring import Console
from xenkdump_fast.xen.frames import WINDOW
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.layout import by_types
from xenkdump_forge import write_dump
from xenkdump_forge.xen import xen64

from .test_frames import PV_64, VCPU, window_64

ROOT = Path(__file__).parents[2]


def test_every_row_is_complete() -> None:
    rows = Counter((row.name, row.value) for row in compat.TABLE)
    assert [row for row, count in rows.items() if count > 1] == []
    for row in compat.TABLE:
        assert row.versions, row
        assert re.fullmatch("([0-9a-f]{10})?", row.commit), row
        assert (ROOT / row.test).is_file(), row


def test_values_are_in_the_order_of_the_table() -> None:
    assert compat.values("stack size 4") == (0x1000, 0x2000)
    assert compat.value("alignment of the image") == 1 << 30
    with pytest.raises(KeyError):
        compat.values("stack size 2")
    with pytest.raises(ValueError, match="too many values"):
        compat.value("stack size 4")


class OldTypes:
    """The members of a version, at offsets in the order of the table."""

    source = "DWARF"

    def __init__(self, absent: set[str]) -> None:
        paths = [path for paths in compat.members().values() for path in paths]
        self.offsets = {path: 8 * i for i, path in enumerate(paths) if path not in absent}

    def member(self, path: str) -> Any:
        if path not in self.offsets:
            raise AbsentError(path)
        kind = "array" if path == "domain.vcpu" else "struct"
        return SimpleNamespace(offset=self.offsets[path], kind=kind)


def test_members_of_older_versions() -> None:
    paths = compat.members()["vcpu.gs_base"]
    for i, path in enumerate(paths):
        types = OldTypes(set(paths[:i]))
        layout = by_types(cast(Any, types))
        assert layout.offsets["vcpu.gs_base"] == types.offsets[path]
        assert not layout.vcpu_by_pointer
    newest, *others = compat.members()["vcpu.registers"]
    types = OldTypes({newest})
    assert by_types(cast(Any, types)).offsets["vcpu.registers"] == types.offsets[others[0]]


@pytest.mark.parametrize("size", compat.values("stack size 8"))
def test_stacks_of_any_size(size: int) -> None:
    """The window of guest registers is at the end of the stack that holds sp."""
    low = 0xFFFF_8300_3800_0000
    window = window_64(PV_64)

    class Memory:
        def read(self, address: int, length: int) -> bytes:
            if address == low + size - WINDOW:
                return window[:length]
            raise MemoryFault(f"{address:#x}")

        def u8(self, address: int) -> int:
            if address != VCPU:
                raise MemoryFault(f"{address:#x}")
            return 0

    virtual = cast(AddressSpace, Memory())
    ((stack, info),) = pcpus._infos(virtual, low + 0x10, 8, {})
    assert stack == (low, low + size)
    assert info.guest is not None


def test_the_m2p_has_an_address_for_each_paging_format() -> None:
    assert {entry for _, _, entry in m2p.TABLES} == {4, 8}
    # Outside of the guest's part of the address space.
    by_paging = {paging: base for paging, base, _ in m2p.TABLES if paging != "x86_64"}
    assert by_paging["x86"] > by_paging["x86-pae"] > 0xC000_0000


@pytest.mark.parametrize(
    ("base", "entry"), [(b, e) for p, b, e in m2p.TABLES if p == "x86_64" and b >> 39 & 511 == 261]
)
def test_the_m2p_of_a_32_bit_guest_of_a_64_bit_xen(
    base: int, entry: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page tables map Xen's own M2P only, and the guest's at an address that varies."""
    if entry == 4:
        monkeypatch.setattr(xen64, "RDWR_COMPAT_M2P", base)
        monkeypatch.setattr(m2p, "TABLES", [row for row in m2p.TABLES if row[2] == 4])
    synthetic = write_dump(tmp_path, like="32on64")
    found = check.run(xenkdump_fast.open(str(synthetic.vmcore)))
    assert found.m2p is not None
    assert found.m2p_at is not None
    assert found.m2p_at.startswith(f"{base:#x} by cr3 of ")
    frames = synthetic.plan["domains"][0]["p2m"]["counts"]["frame"]
    assert (found.m2p.equal, found.m2p.different, found.m2p.unreadable) == (frames, 0, 0)


@pytest.mark.parametrize("word", [8, 4])
def test_the_shared_info_of_each_word(word: int) -> None:
    page = bytearray(4096)
    letter = "Q" if word == 8 else "I"
    # public/xen.h: wc_version, wc_sec, wc_nsec; then arch.
    struct.pack_into("<3I", page, 3072 if word == 8 else 2304, 2, 1_700_000_000, 5)
    struct.pack_into(f"<2{letter}", page, 3088 if word == 8 else 2316, 0x1000, 0x2000)
    struct.pack_into(f"<3{letter}", page, 3112 if word == 8 else 2328, 0x3000, 0x4000, 6)
    assert shared_info.wallclock(bytes(page), word) == (1_700_000_000, 5)
    found = shared_info.parse(bytes(page), word)
    assert found[1:] == (0x1000, 0x2000, 0x3000, 0x4000, 6)


@pytest.mark.parametrize("is_pointer", compat.values("conring is a pointer"))
def test_both_kinds_of_conring(is_pointer: bool) -> None:
    at, ring = 0x1000, 0x8000
    text = b"(XEN) line\n"
    data = text.ljust(1 << 14, b"\0")
    size = 8 if is_pointer else len(data)
    symbols = {"conring": at, "conringp": 0x2000}

    class Symbols(dict[str, int]):
        def lookup(self, address: int) -> Any:
            return SimpleNamespace(size=size)

    def read(address: int, size: int) -> bytes:
        assert address == (ring if is_pointer else at)
        return data

    memory = SimpleNamespace(
        word=8,
        memory_held=1 << 20,
        pointer=lambda address: ring,
        number=lambda address, size: len(text),
        data=read,
    )
    dump = SimpleNamespace(memory_held=1 << 20, path="vmcore")
    xen = SimpleNamespace(memory=memory, symbols=Symbols(symbols), dump=dump)
    found = console._by_symbols(cast(XenHost, xen))
    assert found.lines == ["(XEN) line"]


@pytest.mark.parametrize(
    ("lines", "reason", "cpu"),
    [
        (["(XEN) Hardware Dom0 crashed: rebooting"], "Hardware Dom0 crashed: rebooting", None),
        (["(XEN) Domain 0 crashed: rebooting"], "Domain 0 crashed: rebooting", None),
        (["(XEN) Panic on CPU 3:", "(XEN) no memory"], "Panic on CPU 3: no memory", 3),
        (["(XEN) FATAL TRAP: vector = 6"], "FATAL TRAP: vector = 6", None),
    ],
)
def test_xen_s_messages_of_a_crash(lines: list[str], reason: str, cpu: int | None) -> None:
    assert header._reason(Console(lines, False, "conring")) == (reason, cpu)
