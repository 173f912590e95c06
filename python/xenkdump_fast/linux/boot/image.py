"""Where a kernel's image is linked, and what it says about its page tables."""

from ..._native import AbsentError, Image, Symbols
from ..._typing import TYPE_CHECKING
from ...limits import MAX_LINUX_BANNER
from .. import compat

if TYPE_CHECKING:
    from ..._native import Paging

PAGE = 4096
#: x86_64: the base of the addresses that the image is linked at (page_64_types.h).
START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
#: The start of linux_banner (init/version.c).
BANNER = b"Linux version "


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


def banner_of(image: Image) -> bytes:
    """The image's linux_banner; its start if the file does not have it."""
    address = image.symbols().get("linux_banner")
    if address is None:
        return BANNER
    try:
        # objcopy --only-keep-debug leaves it out.
        text = image.read(address, MAX_LINUX_BANNER).partition(b"\0")[0]
    except AbsentError:
        return BANNER
    return text if text.startswith(BANNER) else BANNER
