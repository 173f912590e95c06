"""Inference of layouts that no version of Xen has: it must not depend on known layouts."""

import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from xenkdump_fast._native import Dump
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.infer import infer, vcpu_addresses
from xenkdump_fast.xen.memory import XenMemory
from xenkdump_fast.xen.pcpus import Pcpu
from xenkdump_forge import write_dump

PAGE = 4096
#: By word: the start of the synthetic hypervisor's heap, and a kernel address of a guest.
HEAP = {8: 0xFFFF_8300_0100_0000, 4: 0xFF40_0000}
KERNEL = {8: 0xFFFF_FFFF_8100_1000, 4: 0xC010_1000}
SELECTORS = {8: (0xE033, 0xE02B), 4: (0x61, 0x69)}
GENERAL = {8: 15, 4: 7}


class FakeMemory(XenMemory):
    """Xen's memory as a run of bytes; machine frames as a dictionary."""

    def __init__(self, word: int, size: int) -> None:
        self.word = word
        self.start = HEAP[word]
        self.content = bytearray(size)
        self.frames: dict[int, bytes] = {}
        self.known_roots: set[int] = set()

    def put(self, address: int, data: bytes) -> None:
        at = address - self.start
        self.content[at : at + len(data)] = data

    def put_word(self, address: int, value: int) -> None:
        self.put(address, value.to_bytes(self.word, "little"))

    # The interface of XenMemory.

    def read(self, address: int, size: int) -> bytes | None:
        at = address - self.start
        return bytes(self.content[at : at + size]) if 0 <= at <= len(self.content) - size else None

    struct = read

    def number(self, address: int, size: int) -> int | None:
        data = self.read(address, size)
        return None if data is None else int.from_bytes(data, "little")

    def is_xen(self, address: int) -> bool:
        return self.start <= address < self.start + len(self.content)

    def frame(self, mfn: int) -> bytes | None:
        return self.frames.get(mfn)

    def is_root(self, address: int) -> bool:
        return address in self.known_roots


class Host:
    """Two domains with three vCPUs, in structs with the layout ``offsets``."""

    def __init__(
        self,
        word: int,
        offsets: Mapping[str, int],
        *,
        by_pointer: bool = True,
        translated: tuple[bool, ...] = (False, False),
    ) -> None:
        self.word = word
        self.offsets = offsets
        self.memory = FakeMemory(word, 64 * PAGE)
        self.rng = random.Random(11)
        self._next = HEAP[word]
        self.pcpus: list[Pcpu] = []
        self.domains = [
            self._domain(i, count, by_pointer, hvm)
            for i, (count, hvm) in enumerate(zip((2, 1, 1), translated, strict=False))
        ]

    def _page(self, pages: int = 1) -> int:
        at = self._next
        self._next += pages * PAGE
        return at

    def _domain(self, number: int, count: int, by_pointer: bool, hvm: bool) -> int:
        o, memory = self.offsets, self.memory
        domain = self._page()
        memory.put(domain, struct.pack("<H", number))
        array = self._page() if by_pointer else domain + o["domain.vcpu"]
        if by_pointer:
            memory.put_word(domain + o["domain.vcpu"], array)
        memory.put(domain + o["domain.max_vcpus"], struct.pack("<I", count))
        shared = self._page()
        memory.put_word(domain + o["domain.shared_info"], shared)
        if not hvm:
            self._share(shared, 0x100 * (number + 1))
        if number:
            uuid = bytearray(self.rng.randbytes(16))
            uuid[6] = 0x40 | uuid[6] & 0xF
            uuid[8] = 0x80 | uuid[8] & 0x3F
            memory.put(domain + o["domain.uuid"], bytes(uuid))
        for i in range(count):
            vcpu = self._page(2)
            memory.put_word(array + i * self.word, vcpu)
            self._vcpu(domain, vcpu, (i, number), hvm)
        return domain

    def _share(self, page: int, mfn: int) -> None:
        """A frame list of two levels at machine frame ``mfn``."""
        w = self.word
        self.memory.frames[mfn] = (mfn + 1).to_bytes(w, "little").ljust(PAGE, b"\0")
        self.memory.frames[mfn + 1] = (mfn + 2).to_bytes(w, "little").ljust(PAGE, b"\0")
        at = 3088 if w == 8 else 2316
        values = 0x8000.to_bytes(w, "little") + mfn.to_bytes(w, "little")
        self.memory.put(page + at, values)

    def _vcpu(self, domain: int, vcpu: int, numbers: tuple[int, int], hvm: bool) -> None:
        number, owner = numbers
        o, memory, w = self.offsets, self.memory, self.word
        running = number == 0
        root = (0x1000 + 0x10 * owner + number) * PAGE
        memory.known_roots.add(root)
        memory.put(vcpu, struct.pack("<I", number))
        memory.put(vcpu + o["vcpu.processor"], struct.pack("<I", owner))
        memory.put_word(vcpu + o["vcpu.domain"], domain)
        memory.put_word(vcpu + o["vcpu.cr3"], root)
        general = [self.rng.randrange(1 << 30) for _ in range(GENERAL[w])]
        cs, ss = (0, 0) if hvm else SELECTORS[w]
        pushed = [0, KERNEL[w] + number * 16, cs, 0x246, KERNEL[w] + 0x8000, ss]
        for i, value in enumerate([*general, *pushed]):
            memory.put_word(vcpu + o["vcpu.registers"] + i * w, value)
        state = 0 if running else 2
        times = struct.pack("<5Q", 9_000_000_000, 5_000_000_000, 10_000, 2_000_000_000, 0)
        at = vcpu + o["vcpu.runstate"]
        memory.put(at, struct.pack("<I", state))
        memory.put(at + (8 if w == 8 else 4), times)
        if running:
            name = "x86_64" if w == 8 else "x86-pae"
            self.pcpus.append(
                Pcpu(owner, {}, root, root, cast(Any, name), w, None, vcpu, None),
            )


LAYOUTS = {
    # The layouts of 4.17 and 4.14, and an invented one.
    "4.17": (4, 8, 16, 1928, 4, 16, 208, 648, 2856),
    "4.14": (4, 16, 24, 1720, 4, 24, 216, 640, 2600),
    "wide": (64, 200, 120, 512, 12, 72, 400, 1200, 3600),
}


NAMES = (
    *("domain.max_vcpus", "domain.vcpu", "domain.shared_info", "domain.uuid"),
    *("vcpu.processor", "vcpu.domain", "vcpu.runstate", "vcpu.registers", "vcpu.cr3"),
)


def offsets_of(row: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(NAMES, row, strict=True))


@pytest.mark.parametrize("word", [8, 4])
@pytest.mark.parametrize("by_pointer", [True, False], ids=["array by pointer", "array inside"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_finds_any_layout(name: str, by_pointer: bool, word: int) -> None:
    offsets = offsets_of(LAYOUTS[name])
    if not by_pointer:
        # An embedded array enlarges the struct: three slots are enough here.
        offsets["domain.vcpu"] = 3000
    host = Host(word, offsets, by_pointer=by_pointer)
    memory = host.memory
    layout = infer(memory, dict(enumerate(host.domains)), host.pcpus, PAGE)
    assert layout.vcpu_by_pointer == by_pointer
    assert {key: layout.get(key) for key in offsets} == offsets
    assert layout.warnings == []
    for domain, count in zip(host.domains, (2, 1), strict=True):
        found = list(vcpu_addresses(memory, layout, domain, None))
        assert [(number, problem) for number, _, problem in found] == [
            (number, None) for number in range(count)
        ]


@pytest.mark.parametrize("flags", [0x001, 0x3FF], ids=["PVH", "HVM"])
def test_emulation_flags_of_translated_guests(flags: int) -> None:
    offsets = offsets_of(LAYOUTS["4.17"])
    host = Host(8, offsets, translated=(False, False, True))
    for domain, value in zip(host.domains, (0x100, 0, flags), strict=True):
        host.memory.put(domain + 1884, struct.pack("<I", value))
        # A flag that all vCPUs have does not mean emulation.
        host.memory.put(domain + 600, struct.pack("<I", 0x100))
    memory = host.memory
    layout = infer(memory, dict(enumerate(host.domains)), host.pcpus, PAGE)
    assert {key: layout.get(key) for key in offsets} == offsets
    assert layout.get("domain.emulation") == 1884


def test_translated_guests_alone() -> None:
    """A PVH dom0: registers have no selectors, and no P2M is published."""
    offsets = offsets_of(LAYOUTS["4.14"])
    host = Host(8, offsets, translated=(True, True))
    memory = host.memory
    layout = infer(memory, dict(enumerate(host.domains)), host.pcpus, PAGE)
    for key in ("domain.vcpu", "vcpu.domain", "vcpu.registers", "vcpu.cr3", "vcpu.runstate"):
        assert layout.get(key) == offsets[key], key
    assert layout.get("domain.emulation") is None


def test_no_layout_is_inferred_from_noise() -> None:
    host = Host(8, offsets_of(LAYOUTS["4.17"]), by_pointer=True)
    rng = random.Random(5)
    host.memory.content[:] = rng.randbytes(len(host.memory.content))
    layout = infer(host.memory, dict(enumerate(host.domains)), host.pcpus, PAGE)
    assert layout.get("domain.vcpu") is None
    assert layout.warnings


@pytest.mark.parametrize(
    "shift",
    [
        {"DOMAIN_VCPU": 16, "DOMAIN_NEXT": 144, "VCPU_INFO": 16, "VCPU_NEXT": 32},
        {"VCPU_ARCH": 632, "VCPU_USER_REGS": 640, "VCPU_CR3": 2952, "DOMAIN_NEXT": 160},
        {"DOMAIN_VCPU": 40, "VCPU_INFO": 48, "VCPU_CR3": 2600, "VCPU_USER_REGS": 1000},
    ],
    ids=["domain", "vcpu", "both"],
)
def test_hosts_of_other_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: dict[str, int]
) -> None:
    """End to end, from the file to the vCPUs."""
    before = _facts(write_dump(tmp_path / "before", "modern").vmcore)
    for name, value in shift.items():
        monkeypatch.setattr(f"xenkdump_forge.xen.xen64.{name}", value)
    assert _facts(write_dump(tmp_path / "after", "modern").vmcore) == before


def _facts(vmcore: Path) -> list[Any]:
    xen = XenHost(Dump(str(vmcore)))
    facts: list[Any] = [xen.warnings]
    for domain in xen.domains():
        vcpus = [(v.id, v.pcpu, v.running, v.root, v.registers) for v in domain.vcpus]
        facts.append((domain.id, domain.kind, domain.max_pfn, vcpus, domain.warnings))
    return facts
