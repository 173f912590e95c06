"""The KASLR offset of a kernel, if no note has it.

kdump writes the kernel's VMCOREINFO as a note; dumps by QEMU and of single domains have it only if
the guest provided it. Two methods remain: the CPU's interrupt descriptor table, whose first handler
is a symbol; and a search of memory for the text of VMCOREINFO.
"""

from collections.abc import Iterable, Iterator, Mapping

from ... import qemu_notes
from ..._native import AbsentError, AddressSpace, Dump, Image, MemoryFault, Note, Symbols
from ...limits import MAX_VMCOREINFO, MAX_VMCOREINFO_SEARCH
from . import vmcoreinfo

#: The handlers of vector 0: the first since 5.8 (9d06c4027f21), the second before.
_DIVIDE_ERROR = ("asm_exc_divide_error", "divide_error")
#: A KASLR offset is a multiple of the page size below KERNEL_IMAGE_SIZE (1 GiB).
_ALIGNMENT, _LIMIT = 1 << 12, 1 << 30
#: Bytes that are searched at once.
_CHUNK = 4 << 20
_KEY = b"OSRELEASE="
#: A text without it does not say where the kernel is.
_NEEDED = b"KERNELOFFSET="


def idts(notes: Iterable[Note]) -> Iterator[tuple[int, int]]:
    """cr3 and the address of the interrupt descriptor table of each CPU, from QEMU's notes."""
    for cpu in qemu_notes.cpus(notes):
        if cpu.idt:
            # With page table isolation, bit 12 distinguishes the user root from the kernel's.
            yield cpu.cr3 & ~0x1FFF, cpu.idt


def by_idt(virtual: AddressSpace, idt: int, symbols: Symbols) -> int | None:
    """The KASLR offset by the first handler in an x86_64 interrupt descriptor table."""
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
    """Searches machine memory for the VMCOREINFO of ``image``; None if it is not found.

    It must have the image's build id (present since 5.9), else the image's address of _stext.
    Program headers can map the same bytes of the file to any number of addresses: no more is
    searched than the memory that the dump holds.
    """
    remaining = min(MAX_VMCOREINFO_SEARCH, dump.memory_held)
    for held in dump.machine.iter_mapped():
        if not remaining:
            break
        at, end = held.address, held.address + min(held.size, remaining)
        remaining -= end - at
        while at < end:
            step = min(_CHUNK, end - at)
            try:
                # The key may cross the end of the step.
                data = dump.machine.read(at, min(step + len(_KEY), end - at))
            except MemoryFault:
                at += step
                continue
            found = data.find(_KEY)
            while found >= 0:
                # The key occurs once per text, so that texts do not overlap.
                following = data.find(_KEY, found + len(_KEY))
                length = following - found if following >= 0 else MAX_VMCOREINFO
                size = min(length, MAX_VMCOREINFO)
                facts = _facts(dump, at + found, size)
                if _belongs_to(facts, image):
                    return facts
                found = following
            at += step
    return None


def _facts(dump: Dump, address: int, size: int) -> Mapping[str, str]:
    """The VMCOREINFO of at most ``size`` bytes at a machine address; empty if it is not one."""
    if size < len(_KEY) + len(_NEEDED):
        return {}
    try:
        text = dump.machine.cstring(address, size)
    except MemoryFault:
        return {}
    return vmcoreinfo.parse(text.decode("utf-8", "backslashreplace")) if _NEEDED in text else {}


def _belongs_to(facts: Mapping[str, str], image: Image) -> bool:
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
