"""The image of a kernel without its vmlinux: symbols, types and unwind tables in its memory."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from ..._native import AbsentError, AddressSpace, Image
from ..._typing import TYPE_CHECKING
from ...limits import MAX_IMAGE_ROOTS, MAX_REPORTED_ROOTS
from . import variables, vmcoreinfo
from .image import START_KERNEL_MAP
from .roots import Root

if TYPE_CHECKING:
    from ..._native import Paging, WordSize

#: Paging formats with the word size of the kernels that use them. Last: the root of a 32-bit guest
#: on a 64-bit Xen.
_FORMATS: "tuple[tuple[Paging, WordSize], ...]" = (
    ("x86_64", 8),
    ("x86_64-la57", 8),
    ("x86-pae", 4),
    ("x86", 4),
    ("x86_64", 4),
)
#: Where the image is mapped: from __START_KERNEL_map on for x86_64; for i386 near PAGE_OFFSET,
#: which CONFIG_VMSPLIT changes.
_RANGES: "Mapping[WordSize, list[tuple[int, int]]]" = {
    8: [(START_KERNEL_MAP, 0xFFFF_FFFF_BFFF_FFFF)],
    4: [
        (0xC000_0000, 0xC7FF_FFFF),
        (0xB000_0000, 0xB7FF_FFFF),
        (0x8000_0000, 0x87FF_FFFF),
        (0x7800_0000, 0x7FFF_FFFF),
        (0x4000_0000, 0x47FF_FFFF),
    ],
}
#: A KASLR offset is smaller (KERNEL_IMAGE_SIZE).
_MAX_SLIDE = 1 << 30


def of_space(virtual: AddressSpace, word: "WordSize", name: str) -> Image:
    """The image of the kernel in an address space, by its kallsyms; AbsentError if it has none."""
    return Image.in_memory(virtual, word, name, _RANGES[word], None)


def images(
    space: "Callable[[int, Paging], AddressSpace]",
    path: str,
    facts: Mapping[str, str],
    roots: Iterable[Root],
) -> Iterator[Image]:
    """The images of the kernels that are found through ``roots``, each once.

    ``space`` opens the address space below a root. ``facts`` is the VMCOREINFO of a note; ``path``
    is what messages call the dump. Raises AbsentError, which says what was tried, if there is none.
    """
    tried: list[str] = []
    token_table = vmcoreinfo.number(facts, "SYMBOL(kallsyms_token_table)", 16)
    banners: set[tuple[int, int]] = set()
    #: Images without kallsyms: another root may lead to one that has it.
    partial: dict[tuple[int, int], Image] = {}
    for root in islice(roots, MAX_IMAGE_ROOTS):
        for paging, word in _FORMATS:
            virtual = space(root.address, paging)
            name = f"the kernel in {path}"
            try:
                image = Image.in_memory(virtual, word, name, _RANGES[word], token_table)
                banner = image.symbols()["linux_banner"]
                key = (virtual.translate(banner), banner)
            except (AbsentError, KeyError) as error:
                reason = str(error).removeprefix(f"{name}: ")
                tried.append(f"{root.how} {root.address:#x} ({paging}): {reason}")
                continue
            if "_text" not in image.symbols() and "_stext" not in image.symbols():
                image = variables.complete(image, virtual, facts)
                partial.setdefault(key, _unmoved(image, virtual, facts))
            elif key not in banners:
                banners.add(key)
                image = variables.complete(image, virtual, facts)
                yield _unmoved(image, virtual, facts)
            break
    yield from (image for key, image in partial.items() if key not in banners)
    if not banners and not partial:
        reason = "; ".join(tried[:MAX_REPORTED_ROOTS]) if tried else "there is no root to try"
        raise AbsentError(f"no kernel was found in memory: {reason}")


def _unmoved(image: Image, virtual: AddressSpace, facts: Mapping[str, str]) -> Image:
    """The image at the addresses of its file; itself, with its tables, if KASLR did not move it."""
    slide = _slide(image, virtual, facts)
    return image.unmoved(slide) if slide else image


def _slide(image: Image, virtual: AddressSpace, facts: Mapping[str, str]) -> int:
    """The KASLR offset according to VMCOREINFO; 0 if it is not known."""
    symbols = image.symbols()
    for known in (facts, vmcoreinfo.in_memory(symbols, virtual, image.word)):
        slide = vmcoreinfo.number(known, "KERNELOFFSET", 16)
        if slide is not None and 0 <= slide < _MAX_SLIDE and variables.is_own(known, symbols):
            return slide
    return 0
