"""Where in machine memory a kernel lies: its root page table, its paging format, its KASLR slide.

Nothing is believed that the dump does not confirm: a root counts only when the kernel's own
``linux_banner`` can be read through it, and under Xen only when the domain's P2M maps the banner's
page to the very frame that the page tables do. Two domains may well run one kernel, and the order
of the notes says nothing about whose root stands first: a pCPU may have been running a domU, or an
HVM guest, when the host died.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ..._native import P2M, AbsentError, AddressSpace, Dump, Image, MemoryFault, Symbols
from .. import compat
from . import vmcoreinfo

if TYPE_CHECKING:
    from ..._native import Paging

PAGE = 4096
#: x86_64: where the image is linked, whatever its slide (arch/x86/include/asm/page_64_types.h).
START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
BANNER = b"Linux version "
#: A CPU names one root; neither Xen nor Linux can be built for more CPUs than these.
MOST_ROOTS = 1 << 14
#: A kernel has one slide. CPUs that disagree on it are broken, and so many are believed.
_SLIDES = 8
#: Roots that find the banner in one frame are one kernel's. In a cut dump one of them may lead
#: further than another; so many are kept.
_ALIKE = 4
#: Of the roots that were tried, so many are told.
_TOLD = 2


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
    """The address of the first candidate of ``compat.SYMBOLS[key]`` that exists."""
    for name in compat.SYMBOLS[key]:
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


class Banners(NamedTuple):
    """Where the roots that may be a kernel's find its banner."""

    #: The first roots of all that find it in a machine frame, with their formats, by that frame.
    by_frame: "dict[int, list[tuple[Root, Paging]]]"
    #: Why the first of the others do not find it.
    refused: list[str]


class Roots:
    """Page-table roots that may be a kernel's. Each is asked once, however many P2Ms it is tried
    with.
    """

    def __init__(self, dump: Dump, image: Image, roots: Iterable[Root]) -> None:
        self.dump = dump
        self.image = image
        self._formats = formats(image)
        self._given = roots
        self._banners: dict[int, Banners] = {}

    @cached_property
    def _roots(self) -> list[Root]:
        return list(islice(self._given, MOST_ROOTS))

    def banners(self, banner: int) -> Banners:
        """Through which of them a banner can be read at that address."""
        known = self._banners.get(banner)
        if known is None:
            known = self._banners[banner] = self._ask(banner)
        return known

    def _ask(self, banner: int) -> Banners:
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
                    alike = found.by_frame.setdefault(frame, [])
                    if len(alike) < _ALIKE:
                        alike.append((root, paging))
                elif len(found.refused) < _TOLD:
                    found.refused.append(f"{root.how} {root.address:#x} ({paging}): {reason}")
        return found


def locate(
    roots: Roots, p2m: P2M | None, facts: Mapping[str, str], physical: AddressSpace | None
) -> Location:
    """Finds the kernel that ``roots`` may be of: by its own swapper_pg_dir, else among them.

    ``p2m`` is the domain's own, or None where there is no Xen or none can be read; ``physical`` is
    the pseudo-physical memory, or None likewise; ``facts`` is the kernel's VMCOREINFO where the
    dump has it. Raises AbsentError, which says what was tried.
    """
    tried: list[str] = []
    for known in _facts(roots.dump, roots.image, facts, p2m):
        found = _locate(roots, p2m, known, physical, tried)
        if found is not None:
            return found
    detail = "; ".join(tried[:_TOLD]) if tried else "there is no root to try"
    raise AbsentError(f"the kernel of {roots.image.path} was not found in the dump: {detail}")


def _facts(
    dump: Dump, image: Image, facts: Mapping[str, str], p2m: P2M | None
) -> Iterator[Mapping[str, str]]:
    """What to believe of where the kernel was moved to: one of these."""
    yield facts
    if facts or p2m is not None:  # no PV kernel is ever moved
        return
    from . import kaslr

    symbols = image.symbols()
    slides: dict[int, None] = {}
    for cr3, idt in islice(kaslr.idts(dump.notes), MOST_ROOTS):
        for paging in formats(image):
            slide = kaslr.by_idt(dump.virtual(cr3, paging), idt, symbols)
            if slide and slide not in slides and len(slides) < _SLIDES:
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
    """As ``locate`` by these facts alone; adds to ``tried`` what was not to be believed."""
    dump, image = roots.dump, roots.image
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
    """The root that finds the banner where the domain has it: at a physical address by its P2M."""
    tried += found.refused
    if not found.by_frame:
        return None
    if p2m is None:
        return next(iter(found.by_frame.values()))[0]
    if not 0 <= physical < 1 << 64:
        tried.append(f"linux_banner would be at the physical address {physical:#x}")
        return None
    kind, mfn = p2m.entry(physical // PAGE)
    if mfn in found.by_frame:
        return found.by_frame[mfn][0]
    owned = "" if mfn is None else f" {mfn:#x}"
    for frame, ((root, paging), *_) in islice(found.by_frame.items(), _TOLD):
        tried.append(
            f"{root.how} {root.address:#x} ({paging}): another domain's: its linux_banner is in "
            f"mfn {frame:#x}, where this domain's pfn {physical // PAGE:#x} is {kind}{owned}"
        )
    return None


def _own_roots(
    image: Image, symbols: Symbols, physical: AddressSpace, to_physical: int
) -> Iterator[Root]:
    """The kernel's own root, by its image: the one that no CPU's last task decides."""
    swapper = first_symbol(symbols, "swapper")
    if swapper is None:
        return
    with suppress(MemoryFault):
        yield Root(physical.translate(swapper + to_physical), "swapper_pg_dir")
    # In 2.6.18-xen swapper_pg_dir is a pointer to the table.
    with suppress(MemoryFault):
        pointer = physical.word(swapper + to_physical, image.word)
        yield Root(physical.translate(pointer + to_physical), "*swapper_pg_dir")
