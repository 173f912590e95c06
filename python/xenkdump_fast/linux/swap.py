"""Swap devices and files."""

from collections.abc import Iterator
from typing import NamedTuple

from .._native import AbsentError
from ..isolation import isolated
from ..limits import MAX_SWAP_DEVICES
from .kernel import Kernel
from .paths import UNKNOWN, Paths

PAGE = 4096
#: SWP_USED and SWP_BLKDEV (include/linux/swap.h), if the types do not have these enumerators.
_USED, _BLOCK_DEVICE = 1 << 0, 1 << 6


class Swap(NamedTuple):
    """A swap device or file."""

    #: Address of the struct swap_info_struct.
    address: int
    is_file: bool
    #: Bytes that can be used, and those that are.
    size: int
    used: int
    priority: int
    path: str

    @property
    def percent(self) -> int:
        """The used part, as a percentage, rounded down."""
        return self.used * 100 // self.size if self.size else 0


def swaps(kernel: Kernel) -> list[Swap]:
    """The swap devices and files in use, by their types.

    Those that cannot be read are left out with a warning. AbsentError if the layout is not known.
    """
    found: list[Swap] = []
    mounts: list[int | None] = []
    dentries: list[int] = []
    in_use, block_device = (
        _flag(kernel, name, known)
        for name, known in (("SWP_USED", _USED), ("SWP_BLKDEV", _BLOCK_DEVICE))
    )
    for at in _addresses(kernel):
        with isolated(f"the swap device at {at:#x} cannot be read", kernel.warn):
            flags = kernel.read(at, "swap_info_struct.flags")
            if not flags & in_use:
                continue
            file = kernel.read(at, "swap_info_struct.swap_file")
            mount = kernel.read(file, "file.f_path.mnt")
            dentry = kernel.read(file, "file.f_path.dentry")
            found.append(
                Swap(
                    at,
                    not flags & block_device,
                    kernel.read(at, "swap_info_struct.pages") * PAGE,
                    _used(kernel, at) * PAGE,
                    kernel.read(at, "swap_info_struct.prio"),
                    "",
                )
            )
            mounts.append(mount)
            dentries.append(dentry)
    if not found:
        return []
    paths = Paths(kernel)
    texts = [UNKNOWN] * len(found)
    with isolated("paths of swap devices cannot be read", kernel.warn):
        texts = paths.texts(mounts, dentries)
    return [one._replace(path=text) for one, text in zip(found, texts, strict=True)]


def _addresses(kernel: Kernel) -> Iterator[int]:
    """The structs of swap devices: an array of pointers."""
    count = kernel.variable("nr_swapfiles", 4)
    if count > MAX_SWAP_DEVICES:
        raise AbsentError(f"nr_swapfiles is {count}: it is damaged")
    array = kernel.symbol("swap_info")
    for i in range(count):
        with isolated("swap devices are missing", kernel.warn):
            at = kernel.pointer(array + i * kernel.word)
            if at:
                yield at


def _flag(kernel: Kernel, name: str, otherwise: int) -> int:
    native = kernel.types.native
    try:
        return otherwise if native is None else native.enumerator(name)
    except AbsentError:
        return otherwise


def _used(kernel: Kernel, at: int) -> int:
    """The pages in use."""
    # 6.14: an atomic, whose highest bit but one says that the device is not on the list of those
    # with free pages (SWAP_USAGE_OFFLIST_BIT).
    if kernel.has("swap_info_struct.inuse_pages.counter"):
        counter = kernel.read(at, "swap_info_struct.inuse_pages.counter") & kernel.last
        return counter & ~(1 << 8 * kernel.word - 2)
    return kernel.read(at, "swap_info_struct.inuse_pages")
