"""Where a kernel is in machine memory: its root page table, its paging format, its KASLR offset.

A root is accepted only if the kernel's ``linux_banner`` can be read through it, and under Xen only
if the domain's P2M maps the page of the banner to the same frame as the page tables do. Two domains
may run the same kernel, and the order of the notes does not say whose root comes first: a pCPU may
have been running a domU, or an HVM guest, when the host crashed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ..._native import P2M, AbsentError, AddressSpace, Dump, Image, MemoryFault, Symbols
from ...limits import MAX_KASLR_OFFSETS, MAX_REPORTED_ROOTS, MAX_ROOTS, MAX_ROOTS_PER_FRAME
from .. import compat
from . import vmcoreinfo

if TYPE_CHECKING:
    from ..._native import Paging

PAGE = 4096
#: x86_64: the base of the addresses that the image is linked at (page_64_types.h).
START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
BANNER = b"Linux version "


class Root(NamedTuple):
    """A page-table root that may be the kernel's: its machine address and its source."""

    address: int
    how: str


class Location(NamedTuple):
    """How to reach a kernel's virtual memory."""

    #: Machine address of the top page table.
    root: int
    #: Name of the paging format.
    paging: "Paging"
    #: The KASLR offset: the distance of the kernel from where its image is linked.
    slide: int
    #: The source of the root, in words.
    how: str
    #: The kernel's VMCOREINFO, if a note has it.
    facts: Mapping[str, str]


def first_symbol(symbols: Symbols, key: str) -> int | None:
    """The address of the first symbol of ``compat.SYMBOLS[key]`` that exists; None if none does."""
    for name in compat.SYMBOLS[key]:
        address = symbols.get(name)
        if address is not None:
            return address
    return None


def formats(image: Image) -> "tuple[Paging, ...]":
    """The paging formats that a kernel of this image can use, the likeliest first."""
    if image.word == 4:
        # Last: the root of a 32-bit guest on a 64-bit Xen, whose slot 0 leads to the PAE table of
        # the guest.
        return ("x86-pae", "x86", "x86_64")
    return ("x86_64", "x86_64-la57")


def link_base(image: Image, symbols: Symbols) -> int:
    """The difference of a symbol's address and its pseudo-physical address, without phys_base.

    ``__START_KERNEL_map`` on x86_64. On i386 it is PAGE_OFFSET, which follows from
    ``phys_startup_32`` if it exists, else from the upper bits of the address of the text
    (2.6.18-xen is linked at 0xc1000000 with PAGE_OFFSET 0xc0000000).
    """
    if image.word == 8:
        return START_KERNEL_MAP
    physical, virtual = symbols.get("phys_startup_32"), symbols.get("startup_32")
    if physical is not None and virtual is not None and virtual > physical:
        return virtual - physical
    text = symbols.get("_text") or symbols.get("_stext") or 0xC000_0000
    return text & 0xC000_0000


class Banners(NamedTuple):
    """Where the candidates for a kernel's root map its banner."""

    #: The first roots that map it to the same machine frame, with their formats, by that frame.
    by_frame: "dict[int, list[tuple[Root, Paging]]]"
    #: Why it cannot be read through the first of the others.
    refused: list[str]


class Roots:
    """Page-table roots that may be a kernel's.

    The banner is read once through each, however many P2Ms are tried.
    """

    def __init__(self, dump: Dump, image: Image, roots: Iterable[Root]) -> None:
        self.dump = dump
        self.image = image
        self._formats = formats(image)
        self._given = roots
        self._banners: dict[int, Banners] = {}

    @cached_property
    def _roots(self) -> list[Root]:
        return list(islice(self._given, MAX_ROOTS))

    def banners(self, banner: int) -> Banners:
        """Reads the banner at that address through each of them."""
        known = self._banners.get(banner)
        if known is None:
            known = self._banners[banner] = self._read(banner)
        return known

    def _read(self, banner: int) -> Banners:
        found = Banners({}, [])
        for root in self._roots:
            for paging in self._formats:
                virtual = self.dump.virtual(root.address, paging)
                try:
                    text = virtual.read(banner, len(BANNER))
                    frame = virtual.translate(banner) // PAGE
                    reason = f"no banner at {banner:#x}, but {text!r}"
                except MemoryFault as fault:
                    text, frame, reason = b"", 0, fault.reason
                if text == BANNER:
                    same_frame = found.by_frame.setdefault(frame, [])
                    if len(same_frame) < MAX_ROOTS_PER_FRAME:
                        same_frame.append((root, paging))
                elif len(found.refused) < MAX_REPORTED_ROOTS:
                    found.refused.append(f"{root.how} {root.address:#x} ({paging}): {reason}")
        return found


def locate(
    roots: Roots, p2m: P2M | None, facts: Mapping[str, str], physical: AddressSpace | None
) -> Location:
    """Finds the kernel through its own swapper_pg_dir, else through ``roots``.

    ``p2m`` is the domain's own, or None without Xen or if none can be read; ``physical`` is the
    pseudo-physical memory, or None likewise; ``facts`` is the kernel's VMCOREINFO if a note has it.
    Raises AbsentError, which says what was tried.
    """
    tried: list[str] = []
    for known in _facts(roots.dump, roots.image, facts, p2m):
        found = _locate(roots, p2m, known, physical, tried)
        if found is not None:
            return found
    reason = "; ".join(tried[:MAX_REPORTED_ROOTS]) if tried else "there is no root to try"
    raise AbsentError(f"the kernel of {roots.image.path} was not found in the dump: {reason}")


def _facts(
    dump: Dump, image: Image, facts: Mapping[str, str], p2m: P2M | None
) -> Iterator[Mapping[str, str]]:
    """Candidates for the VMCOREINFO that locates the kernel, the most reliable first."""
    yield facts
    if facts or p2m is not None:  # PV kernels have no KASLR offset
        return
    from . import kaslr

    symbols = image.symbols()
    slides: dict[int, None] = {}
    for cr3, idt in islice(kaslr.idts(dump.notes), MAX_ROOTS):
        for paging in formats(image):
            slide = kaslr.by_idt(dump.virtual(cr3, paging), idt, symbols)
            if slide and slide not in slides and len(slides) < MAX_KASLR_OFFSETS:
                slides[slide] = None
                yield {"KERNELOFFSET": f"{slide:x}"}
    searched = kaslr.by_search(dump, image)
    if searched is not None:
        yield searched


def _locate(
    roots: Roots,
    p2m: P2M | None,
    facts: Mapping[str, str],
    physical: AddressSpace | None,
    tried: list[str],
) -> Location | None:
    """As ``locate``, with this VMCOREINFO; None, and reasons in ``tried``, if it is not found."""
    dump, image = roots.dump, roots.image
    slide = vmcoreinfo.number(facts, "KERNELOFFSET", 16) or 0
    if not 0 <= slide < 1 << 63:
        slide = 0  # not a KASLR offset
    symbols = image.symbols(slide)
    banner = symbols.get("linux_banner")
    if banner is None:
        raise AbsentError(f"{image.path}: no symbol linux_banner: not a Linux kernel, or stripped")
    base = link_base(image, symbols)
    phys_base = vmcoreinfo.number(facts, "NUMBER(phys_base)") or 0
    to_physical = phys_base - base
    own = () if physical is None else _own_roots(image, symbols, physical, to_physical)
    for candidates in (Roots(dump, image, own), roots):
        found = candidates.banners(banner)
        match = _match(found, banner + to_physical, p2m, tried)
        if match is not None:
            root, paging = match
            return Location(root.address, paging, slide, root.how, facts)
    return None


def _match(
    found: Banners, physical: int, p2m: P2M | None, tried: list[str]
) -> "tuple[Root, Paging] | None":
    """The root that maps the banner to the frame that the P2M has for its physical address."""
    tried += found.refused
    if not found.by_frame:
        return None
    if p2m is None:
        return next(iter(found.by_frame.values()))[0]
    if not 0 <= physical < 1 << 64:
        tried.append(f"linux_banner is at the invalid physical address {physical:#x}")
        return None
    kind, mfn = p2m.entry(physical // PAGE)
    if mfn in found.by_frame:
        return found.by_frame[mfn][0]
    owned = "" if mfn is None else f" {mfn:#x}"
    for frame, ((root, paging), *_) in islice(found.by_frame.items(), MAX_REPORTED_ROOTS):
        tried.append(
            f"{root.how} {root.address:#x} ({paging}): another domain's: its linux_banner is in "
            f"mfn {frame:#x}, but pfn {physical // PAGE:#x} of this domain is {kind}{owned}"
        )
    return None


def _own_roots(
    image: Image, symbols: Symbols, physical: AddressSpace, to_physical: int
) -> Iterator[Root]:
    """The root of the kernel itself, by its image: it does not depend on what the CPUs ran."""
    swapper = first_symbol(symbols, "swapper")
    if swapper is None:
        return
    with suppress(MemoryFault):
        yield Root(physical.translate(swapper + to_physical), "swapper_pg_dir")
    # In 2.6.18-xen swapper_pg_dir is a pointer to the table.
    with suppress(MemoryFault):
        pointer = physical.word(swapper + to_physical, image.word)
        yield Root(physical.translate(pointer + to_physical), "*swapper_pg_dir")
