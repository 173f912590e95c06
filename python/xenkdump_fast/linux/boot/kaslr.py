"""The KASLR offset of a kernel, if no note has it, or what a note has is wrong.

kdump writes the kernel's VMCOREINFO as a note; dumps by QEMU and of single domains have it only if
the guest provided it. Other methods, the cheapest first: the CPU's interrupt descriptor table,
whose first handler is a symbol; a search for the kernel's banner below a CPU's page-table root; and
a search of memory for texts of VMCOREINFO, then for the banner.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from ... import qemu_notes
from ..._native import AbsentError, AddressSpace, Dump, Image, MemoryFault, Note, Symbols
from ...limits import (
    MAX_BANNER_COPIES,
    MAX_BANNER_SEARCH,
    MAX_KASLR_OFFSETS,
    MAX_ROOTS,
    MAX_VMCOREINFO,
    MAX_VMCOREINFO_SEARCH,
)
from . import vmcoreinfo
from .claims import Claim, of_text
from .image import PAGE, banner_of, first_symbol, formats, link_base
from .roots import Root

#: The handlers of vector 0: the first since 5.8 (9d06c4027f21), the second before.
_DIVIDE_ERROR = ("asm_exc_divide_error", "divide_error")
#: A KASLR offset is a multiple of the page size below KERNEL_IMAGE_SIZE (1 GiB).
_ALIGNMENT, _LIMIT = PAGE, 1 << 30
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


def by_text(dump: Dump, image: Image) -> Iterator[Claim]:
    """Searches machine memory for the VMCOREINFO of ``image``.

    It must have the image's build id (present since 5.9), else the image's address of _stext. There
    may be more than one: memory that was not cleared has the text of a previous boot.
    """
    found: set[tuple[int | None, int | None]] = set()
    for address, facts in _texts(dump):
        if _belongs_to(facts, image):
            claim = of_text(f"the VMCOREINFO at machine address {address:#x}", facts)
            if claim[1:3] not in found:
                found.add(claim[1:3])
                yield claim
                if len(found) == MAX_KASLR_OFFSETS:
                    return


def _texts(dump: Dump) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Texts of VMCOREINFO in machine memory, with their addresses.

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
                yield at + found, _facts(dump, at + found, min(length, MAX_VMCOREINFO))
                found = following
            at += step


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


def by_roots(dump: Dump, image: Image, roots: Iterable[Root]) -> Iterator[Claim]:
    """Searches for the kernel's banner in the part of the address space that is the image's."""
    symbols = image.symbols()
    banner, text = symbols.get("linux_banner"), banner_of(image)
    if banner is None:
        return
    start = link_base(image, symbols)
    end = min(start + _LIMIT, 1 << (image.word * 8))
    remaining = MAX_BANNER_SEARCH
    for root in islice(roots, MAX_ROOTS):
        for paging in formats(image):
            virtual = dump.virtual(root.address, paging)
            found = virtual.search(text, start, end, limit=MAX_BANNER_COPIES, most=remaining)
            remaining -= found.searched
            for address in found.addresses:
                slide = address - banner
                if 0 <= slide < _LIMIT and slide % _ALIGNMENT == 0:
                    yield Claim("", slide, virtual.translate(address) - (address - start))
            if remaining <= 0:
                return


def by_image(dump: Dump, image: Image) -> Iterator[Claim]:
    """Searches machine memory for the kernel's banner: its image is contiguous.

    A log has a copy of the banner, and memory that was not cleared the kernel of a previous boot.
    """
    symbols = image.symbols()
    banner, swapper = symbols.get("linux_banner"), first_symbol(symbols, "swapper")
    if banner is None or swapper is None:
        return
    most = min(MAX_VMCOREINFO_SEARCH, dump.memory_held)
    text = banner_of(image)
    found = dump.machine.search(text, 0, 1 << 64, limit=MAX_BANNER_COPIES, most=most)
    tables = [address + swapper - banner for address in found.addresses]
    roots = [Root(at, "swapper_pg_dir") for at in tables if at >= 0 and at % PAGE == 0]
    yield from by_roots(dump, image, roots)
