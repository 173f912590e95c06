"""Where in machine memory a kernel lies: its root page table, its paging format, its KASLR slide.

Nothing is believed that the dump does not confirm: a root counts only when the kernel's own
``linux_banner`` can be read through it, and under Xen only when the domain's P2M maps the banner's
page to the very frame that the page tables do. Two domains may well run one kernel, and the order
of the notes says nothing about whose root stands first: a pCPU may have been running a domU, or an
HVM guest, when the host died.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from .._native import P2M, AbsentError, AddressSpace, Dump, Image, MemoryFault, Symbols
from . import names, vmcoreinfo

if TYPE_CHECKING:
    from .._native import Paging

PAGE = 4096
#: x86_64: where the image is linked, whatever its slide (arch/x86/include/asm/page_64_types.h).
START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
BANNER = b"Linux version "


class Root(NamedTuple):
    """A page-table root that may be the kernel's: its machine address, and who named it."""

    address: int
    how: str


class Location(NamedTuple):
    """How to reach a kernel's virtual memory."""

    #: Machine address of the top page table.
    root: int
    #: Name of the paging format.
    paging: "Paging"
    #: KASLR: how far the image lies from where it was linked.
    slide: int
    #: Who named the root, in words.
    how: str
    #: The kernel's VMCOREINFO, where it was known before its memory was.
    facts: Mapping[str, str]


def first_symbol(symbols: Symbols, key: str) -> int | None:
    """The address of the first candidate of ``names.SYMBOLS[key]`` that exists."""
    for name in names.SYMBOLS[key]:
        address = symbols.get(name)
        if address is not None:
            return address
    return None


def formats(image: Image) -> "tuple[Paging, ...]":
    """The paging formats that a kernel of this image can run under, the likeliest first."""
    if image.word == 4:
        # Last: a 32-bit guest seen through the root that a 64-bit Xen gives the processor, whose
        # slot 0 leads to the guest's PAE table.
        return ("x86-pae", "x86", "x86_64")
    return ("x86_64", "x86_64-la57")


def link_base(image: Image, symbols: Symbols) -> int:
    """What to take from a symbol's address to get its pseudo-physical address, but for phys_base.

    ``__START_KERNEL_map`` on x86_64. On i386 PAGE_OFFSET, told by ``phys_startup_32`` where there
    is one, else by the upper bits of the text's address (2.6.18-xen is linked at 0xc1000000 with
    PAGE_OFFSET 0xc0000000).
    """
    if image.word == 8:
        return START_KERNEL_MAP
    physical, virtual = symbols.get("phys_startup_32"), symbols.get("startup_32")
    if physical is not None and virtual is not None and virtual > physical:
        return virtual - physical
    text = symbols.get("_text") or symbols.get("_stext") or 0xC000_0000
    return text & 0xC000_0000


def locate(
    dump: Dump,
    image: Image,
    roots: Iterable[Root],
    p2m: P2M | None,
    facts: Mapping[str, str],
    physical: AddressSpace | None,
) -> Location:
    """Finds the kernel of ``image``: by its own swapper_pg_dir, else among ``roots``.

    ``p2m`` is the domain's own, or None where there is no Xen or none can be read; ``physical`` is
    the pseudo-physical memory, or None likewise; ``facts`` is the kernel's VMCOREINFO where the
    dump has it. Raises AbsentError, which says what was tried.
    """
    roots = list(roots)
    tried: list[str] = []
    for known in _facts(dump, image, facts, p2m):
        found = _locate(dump, image, roots, p2m, known, physical, tried)
        if found is not None:
            return found
    detail = "; ".join(tried[:2]) if tried else "there is no root to try"
    raise AbsentError(f"the kernel of {image.path} was not found in the dump: {detail}")


def _facts(
    dump: Dump, image: Image, facts: Mapping[str, str], p2m: P2M | None
) -> Iterator[Mapping[str, str]]:
    """What to believe of where the kernel was moved to: one of these."""
    yield facts
    if facts or p2m is not None:  # no PV kernel is ever moved
        return
    from . import kaslr

    symbols = image.symbols()
    for cr3, idt in kaslr.idts(dump.notes):
        for paging in formats(image):
            slide = kaslr.by_idt(dump.virtual(cr3, paging), idt, symbols)
            if slide:
                yield {"KERNELOFFSET": f"{slide:x}"}
    searched = kaslr.by_search(dump, image)
    if searched is not None:
        yield searched


def _locate(
    dump: Dump,
    image: Image,
    roots: Iterable[Root],
    p2m: P2M | None,
    facts: Mapping[str, str],
    physical: AddressSpace | None,
    tried: list[str],
) -> Location | None:
    """As ``locate`` by these facts alone; adds to ``tried`` what was not to be believed."""
    slide = vmcoreinfo.number(facts, "KERNELOFFSET", 16) or 0
    if not 0 <= slide < 1 << 63:
        slide = 0  # no kernel was ever moved so far
    symbols = image.symbols(slide)
    banner = symbols.get("linux_banner")
    if banner is None:
        raise AbsentError(f"{image.path}: has no symbol linux_banner: not a Linux kernel")
    base = link_base(image, symbols)
    phys_base = vmcoreinfo.number(facts, "NUMBER(phys_base)") or 0
    to_physical = phys_base - base
    own = () if physical is None else _own_roots(image, symbols, physical, to_physical)
    for root in (*own, *roots):
        for paging in formats(image):
            virtual = dump.virtual(root.address, paging)
            verdict = _reject(virtual, banner, banner + to_physical, p2m)
            if verdict is None:
                return Location(root.address, paging, slide, root.how, facts)
            tried.append(f"{root.how} {root.address:#x} ({paging}): {verdict}")
    return None


def _own_roots(
    image: Image, symbols: Symbols, physical: AddressSpace, to_physical: int
) -> Iterator[Root]:
    """The kernel's own root, by its image: the one that no CPU's last task decides."""
    swapper = first_symbol(symbols, "swapper")
    if swapper is None:
        return
    with suppress(MemoryFault, OverflowError):
        yield Root(physical.translate(swapper + to_physical), "swapper_pg_dir")
    # In 2.6.18-xen swapper_pg_dir is a pointer to the table.
    with suppress(MemoryFault, OverflowError):
        pointer = physical.word(swapper + to_physical, image.word)
        yield Root(physical.translate(pointer + to_physical), "*swapper_pg_dir")


def _reject(virtual: AddressSpace, banner: int, physical: int, p2m: P2M | None) -> str | None:
    """Why this root is not the kernel's; None if it is."""
    try:
        text = virtual.read(banner, len(BANNER))
        machine = virtual.translate(banner)
    except MemoryFault as fault:
        return fault.reason
    if text != BANNER:
        return f"no banner at {banner:#x}, but {text!r}"
    if p2m is not None:
        if not 0 <= physical < 1 << 64:
            return f"its linux_banner would be at the physical address {physical:#x}"
        kind, mfn = p2m.entry(physical // PAGE)
        if mfn != machine // PAGE:
            owned = "" if mfn is None else f" {mfn:#x}"
            return (
                f"another domain's: its linux_banner is in mfn {machine // PAGE:#x}, where this "
                f"domain's pfn {physical // PAGE:#x} is {kind}{owned}"
            )
    return None
