"""Page-table roots that may be a kernel's."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice

from ..._native import AddressSpace, Dump, Image, MemoryFault
from ..._typing import TYPE_CHECKING, NamedTuple
from ...limits import MAX_REPORTED_ROOTS, MAX_ROOTS, MAX_ROOTS_PER_FRAME
from . import vmcoreinfo
from .image import BANNER, PAGE, START_KERNEL_MAP, formats

if TYPE_CHECKING:
    from ..._native import Paging


class Root(NamedTuple):
    """A page-table root that may be the kernel's: its machine address and its source."""

    address: int
    how: str


#: With page table isolation (Linux 4.15 and later), bit 12 of cr3 is set in user space.
_USER_ROOT = 1 << 12


def in_kernel_and_user_space(root: int, how: str) -> Iterator[Root]:
    """The roots that belong to the root in a processor's cr3, the most likely first.

    With page table isolation, a process has two. That of user space maps little of the kernel: its
    entry code, and on i386 all of its text with the banner. So the kernel's comes first.
    """
    page = root & ~(PAGE - 1)
    if page & _USER_ROOT and page != _USER_ROOT:
        yield Root(page & ~_USER_ROOT, f"{how} without bit 12")
    yield Root(root, how)


def space(dump: Dump, root: int, paging: "Paging", encryption_mask: int | None) -> AddressSpace:
    """The address space below a root; the mask is that of the notes unless it is given."""
    if encryption_mask is None:
        return dump.virtual(root, paging)
    return dump.virtual(root, paging, encryption_mask=encryption_mask)


def recorded(facts: Mapping[str, str]) -> Iterator[Root]:
    """The root of a machine without Xen, by VMCOREINFO alone.

    The physical address of ``swapper_pg_dir`` follows from its virtual one: it is in the image.
    """
    swapper = vmcoreinfo.number(facts, "SYMBOL(swapper_pg_dir)", 16)
    if swapper is None:
        return
    base = START_KERNEL_MAP if swapper >= START_KERNEL_MAP else swapper & 0xC000_0000
    address = swapper - base + (vmcoreinfo.number(facts, "NUMBER(phys_base)") or 0)
    if 0 <= address < 1 << 64:
        yield Root(address, "swapper_pg_dir of VMCOREINFO")


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
        self._banners: dict[tuple[int, int | None], Banners] = {}

    @cached_property
    def each(self) -> list[Root]:
        """The roots themselves."""
        return list(islice(self._given, MAX_ROOTS))

    def banners(self, banner: int, encryption_mask: int | None = None) -> Banners:
        """Reads the banner at that address through each of them."""
        key = banner, encryption_mask
        known = self._banners.get(key)
        if known is None:
            known = self._banners[key] = self._read(banner, encryption_mask)
        return known

    def _read(self, banner: int, encryption_mask: int | None) -> Banners:
        found = Banners({}, [])
        for root in self.each:
            for paging in self._formats:
                virtual = space(self.dump, root.address, paging, encryption_mask)
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
