"""How far a kernel was moved at boot (KASLR), where no note of the dump tells.

A kdump has the kernel's VMCOREINFO among its notes; QEMU's dumps and those of single domains have
it only where the guest offered it. Two ways remain: the processor's interrupt descriptor table,
whose first handler is a symbol; and the text of VMCOREINFO itself, somewhere in memory.
"""

from collections.abc import Iterable, Iterator, Mapping

from ..._native import AbsentError, AddressSpace, Dump, Image, MemoryFault, Note, Symbols
from . import vmcoreinfo

#: The handlers of vector 0: the first until 5.7, the second since (9d06c4027f21).
_DIVIDE_ERROR = ("asm_exc_divide_error", "divide_error")
#: KASLR moves by pages at the least, and within KERNEL_IMAGE_SIZE (1 GiB).
_ALIGNMENT, _LIMIT = 1 << 12, 1 << 30
#: QEMUCPUState: two u32, 18 registers of 8 bytes, then ten segments of 24, idt the last, each
#: with its base at 16.
_QEMU_IDT = 8 + 18 * 8 + 9 * 24 + 16
#: Bounds on the search of memory, of which a QEMU's dump may hold terabytes.
MAX_SEARCHED, CHUNK = 8 << 30, 4 << 20
_KEY = b"OSRELEASE="
#: Without it a text says nothing of the kernel's place.
_NEEDED = b"KERNELOFFSET="
_TEXT_SIZE = 4096


def idts(notes: Iterable[Note]) -> Iterator[tuple[int, int]]:
    """cr3 and the address of the interrupt descriptor table of each CPU, from QEMU's notes."""
    for note in notes:
        if note.kind == "qemu":
            idt = int.from_bytes(note.data[_QEMU_IDT : _QEMU_IDT + 8], "little")
            if idt:
                # With page table isolation, bit 12 tells the user's root from the kernel's.
                yield note.fields["cr3"] & ~0x1FFF, idt


def by_idt(virtual: AddressSpace, idt: int, symbols: Symbols) -> int | None:
    """The slide by which an x86_64 interrupt descriptor table leads to its first handler."""
    try:
        gate = virtual.read(idt, 16)
    except MemoryFault:
        return None
    handler = int.from_bytes(gate[0:2] + gate[6:12], "little")
    for name in _DIVIDE_ERROR:
        linked = symbols.get(name)
        if linked is None:
            continue
        slide = handler - linked
        if 0 <= slide < _LIMIT and slide % _ALIGNMENT == 0:
            return slide
    return None


def by_search(dump: Dump, image: Image) -> Mapping[str, str] | None:
    """The VMCOREINFO of the kernel of ``image``, wherever machine memory has it; None if nowhere.

    It must have the image's build id (present since 5.9), else the image's release. Program headers
    can map the same bytes of the file to any number of addresses: no more is searched than the
    memory that the dump holds.
    """
    left = min(MAX_SEARCHED, dump.memory_held)
    for held in dump.machine.iter_mapped():
        if not left:
            break
        at, end = held.address, held.address + min(held.size, left)
        left -= end - at
        while at < end:
            step = min(CHUNK, end - at)
            try:
                # A little more than the step: the key may lie across its end.
                data = dump.machine.read(at, min(step + len(_KEY), end - at))
            except MemoryFault:
                at += step
                continue
            found = data.find(_KEY)
            while found >= 0:
                # The key is in a text once: no byte is taken for a part of two.
                following = data.find(_KEY, found + len(_KEY))
                size = _TEXT_SIZE if following < 0 else min(following - found, _TEXT_SIZE)
                facts = _facts(dump, at + found, size)
                if _is_of(facts, image):
                    return facts
                found = following
            at += step
    return None


def _facts(dump: Dump, address: int, size: int) -> Mapping[str, str]:
    """The text of at most ``size`` bytes at a machine address; empty if it is none of a kernel."""
    if size < len(_KEY) + len(_NEEDED):
        return {}
    try:
        text = dump.machine.cstring(address, size)
    except MemoryFault:
        return {}
    return vmcoreinfo.parse(text.decode("utf-8", "backslashreplace")) if _NEEDED in text else {}


def _is_of(facts: Mapping[str, str], image: Image) -> bool:
    if "KERNELOFFSET" not in facts or "SYMBOL(_stext)" not in facts:
        return False
    if "BUILD-ID" in facts and image.build_id is not None:
        return facts["BUILD-ID"] == image.build_id
    moved = vmcoreinfo.number(facts, "SYMBOL(_stext)", 16)
    slide = vmcoreinfo.number(facts, "KERNELOFFSET", 16)
    try:
        linked = image.symbols().get("_stext")
    except AbsentError:
        return False
    if moved is None or slide is None or linked is None:
        return False
    return moved == linked + slide
