"""A host's domain list, its structs and its frame table, in arbitrary memory."""

import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from xenkdump_fast import MemoryFault
from xenkdump_fast.budget import Budget
from xenkdump_fast.limits import MAX_VCPU_READS, MAX_VCPUS
from xenkdump_fast.output.escape import visible
from xenkdump_fast.xen import domains, frame_table, frames, infer, vcpus
from xenkdump_fast.xen.memory import Paging, XenMemory
from xenkdump_fast.xen.pcpus import Pcpu

from .inputs import PAGE, Input, pieces, trimmed

#: The start of Xen's memory, by word.
BASES = {8: 0xFFFF_8300_0000_0000, 4: 0xF600_0000}
PAGES = 16
#: The number of frames in the dump. Xen's own count may be higher.
FRAMES = 4096
#: Page 0 has Xen's variables: the list head, the frame table's address, and its frame count.
HEAD, TABLE, MAX_PAGE, SYSTEM = 0, 8, 16, 24
NEXT, SIZE = 0x68, 0x200
#: The maximum number of memory reads per page, per domain, and per host.
READS_EACH, READS = 20_000, 200_000


class _Virtual:
    """Pages at an address; counts the reads."""

    def __init__(self, base: int, pages: list[bytes]) -> None:
        self.base, self.pages = base, pages
        self.reads = 0

    def _page(self, address: int) -> bytes:
        self.reads += 1
        number = (address - self.base) // PAGE
        if not 0 <= number < len(self.pages) or not self.pages[number]:
            raise MemoryFault(f"{address:#x} is not mapped")
        return self.pages[number]

    def read(self, address: int, size: int) -> bytes:
        if not 0 <= address < 1 << 64:
            raise MemoryFault(f"{address:#x} is outside the address space")
        data = bytearray()
        while len(data) < size:
            page = self._page(address + len(data))
            at = (address + len(data)) % PAGE
            data += page[at : at + size - len(data)]
        return bytes(data)

    def word(self, address: int, size: int) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def u8(self, address: int) -> int:
        return self.word(address, 1)

    def translate(self, address: int) -> int:
        self._page(address)
        return address - self.base


def memory_of(word: int, pages: list[bytes]) -> XenMemory:
    """Xen's memory with these pages only. Each page that starts with an odd byte is a root."""
    virtual = _Virtual(BASES[word], pages)
    nothing = _Virtual(BASES[word], [])

    def root(address: int, _paging: str) -> _Virtual:
        number = address // PAGE
        whole = number < len(pages) and pages[number][:1] and pages[number][0] & 1
        return virtual if whole else nothing

    held = [SimpleNamespace(address=0, size=FRAMES * PAGE)]
    machine = SimpleNamespace(
        read=lambda at, size: virtual.read(BASES[word] + at, size), iter_mapped=lambda: held
    )
    dump: Any = SimpleNamespace(
        virtual=root, machine=machine, memory_held=FRAMES * PAGE, release=lambda: None
    )
    paging: Paging = "x86_64" if word == 8 else "x86-pae"
    memory = XenMemory(dump, word, paging, 0, BASES[word])
    memory.virtual = virtual  # type: ignore[assignment]
    memory._probed = memory.translate(BASES[word])
    return memory


def check(data: bytes) -> None:
    """Lists the domains and vCPUs by an inferred layout: no exception, clean text."""
    given = Input(data)
    word = 8 if given.number(1) & 1 else 4
    running = [given.number(8) for _ in range(2)]
    memory = memory_of(word, given.pages(PAGES))
    base = BASES[word]
    facts = domains.Facts(
        head=base + HEAD,
        next=NEXT,
        id=0,
        size=SIZE,
        frames=frame_table.Table.of(base + TABLE, base + MAX_PAGE, 32, 16, 8),
        system=(base + SYSTEM,),
    )
    pcpus = [_pcpu(memory, i, base + vcpu) for i, vcpu in enumerate(running)]
    found = domains.complete(memory, facts, pcpus, domains.find(memory, facts, pcpus))
    assert len(found.addresses) < domains.FIRST_RESERVED
    layout = infer.infer(memory, found.addresses, pcpus, facts.size)
    warnings = [*found.warnings, *layout.warnings]
    on_pcpus = vcpus.OnPcpus(memory, layout, pcpus)
    budget = Budget("vCPU structs", MAX_VCPU_READS * memory.dump.memory_held)
    for address in found.addresses.values():
        read, problems = vcpus.read(memory, layout, on_pcpus, address, budget)
        assert len(read) <= MAX_VCPUS + len(pcpus)
        warnings += problems
    owned = frame_table.frames_of(memory, facts.frames, list(found.addresses.values()), 1 << 19)
    for runs in owned.values():
        assert (runs[:, 1] > 0).all()
        # Each frame once.
        assert (runs[1:, 0] >= runs[:-1].sum(axis=1)).all()
    domains.system(memory, facts, layout, pcpus, None, warnings)
    assert all(visible(text) == text for text in warnings)
    reads = memory.virtual.reads  # type: ignore[attr-defined]
    assert reads <= READS + READS_EACH * (PAGES + len(found.addresses)), f"{reads} reads"


def _pcpu(memory: XenMemory, number: int, vcpu: int) -> Pcpu:
    """A pCPU that runs the vCPU at this address. Its stack is the next page."""
    stack = (vcpu & -PAGE) + PAGE
    saved = memory.words(stack, frames.size(memory.word))
    return Pcpu(
        number=number,
        registers={"rsp": stack, "esp": stack},
        cr3=memory.pointer(stack + PAGE - memory.word),
        root=0,
        paging=memory.paging,
        word=memory.word,
        stack=(stack, stack + PAGE),
        vcpu=vcpu,
        guest=None if saved is None else frames.read(saved, stack, memory.word),
    )


def seeds() -> Iterator[bytes]:
    """A host of three domains with two vCPUs each, for each word."""
    for word in (8, 4):
        yield bytes([word // 8]) + struct.pack("<2Q", 4 * PAGE, 6 * PAGE) + pieces(_host(word))


def _host(word: int) -> list[bytes]:
    base = BASES[word]
    letter = "Q" if word == 8 else "I"
    pages = [bytearray(PAGE) for _ in range(12)]

    def put(page: int, at: int, *values: int) -> None:
        struct.pack_into(f"<{len(values)}{letter}", pages[page], at, *values)

    for at, value in ((HEAD, base + PAGE), (TABLE, base + 10 * PAGE), (MAX_PAGE, 16)):
        put(0, at, value)
    put(0, SYSTEM, base + 11 * PAGE)
    for domain in range(3):
        struct.pack_into("<H", pages[1 + domain], 0, domain)
        put(1 + domain, NEXT, base + (2 + domain) * PAGE if domain < 2 else 0)
        # An array of two vCPUs in the struct's page; the vCPUs are in a separate page.
        put(1 + domain, 0x80, base + (1 + domain) * PAGE + 0x200)
        struct.pack_into("<I", pages[1 + domain], 0x90, 2)
        put(1 + domain, 0x98, base + 9 * PAGE)
        home = 4 + 2 * domain if domain < 2 else 8
        for vcpu in range(2):
            put(1 + domain, 0x200 + vcpu * word, base + home * PAGE + 0x100 * vcpu)
            struct.pack_into("<I", pages[home], 0x100 * vcpu, vcpu)
            put(home, 0x100 * vcpu + 16, base + (1 + domain) * PAGE)
    for frame in range(16):
        struct.pack_into("<QII", pages[10], frame * 32 + 8, 1, 1 + frame % 3, 0)
    pages[11][:2] = (0x7FF1).to_bytes(2, "little")
    return [trimmed(page) for page in pages]
