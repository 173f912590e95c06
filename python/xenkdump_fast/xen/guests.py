"""The release of a guest's kernel, found without its vmlinux.

``init_uts_ns`` (``system_utsname`` before 2.6.19) consists of strings of fixed size. The
``linux_banner`` elsewhere in the image must name the same release. Both are in the range in which
x86 Linux maps its image.
"""

from collections.abc import Iterable, Iterator

from .._native import AddressSpace, Dump, MemoryFault
from .._typing import NamedTuple
from ..budget import Budget
from ..limits import (
    MAX_BANNER,
    MAX_GUEST_FRAMES,
    MAX_KERNEL_CANDIDATES,
    MAX_KERNEL_IMAGE,
    MAX_KERNEL_SEARCHES,
    MAX_SMALL_SEARCHES,
)

_BANNER = b"Linux version "
#: struct new_utsname: six fields of 65 bytes; the first is "Linux" and 60 zeros.
_FIELD = 65
_UTS = ("sysname", "nodename", "release", "version", "machine", "domainname")
_SIZE = len(_UTS) * _FIELD
_SYSNAME = b"Linux".ljust(_FIELD, b"\0")
#: Addresses that are searched for at first. Linux 6.1 has one copy in front of what is looked for.
_FIRST = 2
#: Where the image is mapped: from __START_KERNEL_map on for x86_64, for i386 from PAGE_OFFSET on,
#: which CONFIG_VMSPLIT changes. No image is as long as these ranges.
_RANGES = {
    8: ((0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000),),
    4: ((0xC000_0000, 0xC800_0000), (0x8000_0000, 0x8800_0000), (0x4000_0000, 0x4800_0000)),
}
PAGE = 4096
#: ns.inum of init_uts_ns (PROC_UTS_INIT_INO, since Linux 3.8), and the bytes after the names in
#: which it is.
_INIT_INODE, _INODE_WITHIN = 0xEFFF_FFFE.to_bytes(4, "little"), 128


class GuestKernel(NamedTuple):
    """A guest's kernel, according to its uts struct."""

    nodename: str
    release: str
    version: str
    machine: str
    #: Virtual address of its ``struct new_utsname``; None if it is not known.
    address: int | None
    #: The first address that is mapped in the range of its image; None if it is not known.
    start: int | None = None

    @property
    def offset(self) -> int | None:
        """Where the struct is in the image: the same for all guests with the same build."""
        if self.address is None or self.start is None:
            return None
        return self.address - self.start


def search_budget(dump: Dump) -> Budget:
    """For the searches for the kernels of all domains in a dump, in bytes."""
    return Budget("kernels", max(MAX_KERNEL_SEARCHES * dump.memory_held, MAX_SMALL_SEARCHES))


def recognise(
    virtual: AddressSpace, word: int, budget: Budget, hints: Iterable[int] = ()
) -> GuestKernel | None:
    """The Linux kernel that is mapped in ``virtual``; None if none is found within ``budget``.

    ``hints`` are the ``offset`` of other guests' kernels.
    """
    known = list(hints)
    for start, end in _RANGES[word]:
        first = next(virtual.iter_mapped(start, end), None)
        if first is None:
            continue
        for offset in known:
            found = _uts_at(virtual, first.address + offset)
            if found is not None:
                return found._replace(start=first.address)
        found = _search_image(virtual, first.address, end, budget)
        if found is not None:
            return found._replace(start=first.address)
    return None


def _search_image(
    virtual: AddressSpace, start: int, end: int, budget: Budget
) -> GuestKernel | None:
    """The kernel whose image is in that range, by its banner and its uts struct."""
    banner = _search(virtual, _BANNER, start, end, budget, limit=1)
    if not banner:
        return None
    found = _behind(virtual, banner[0], end, budget)
    if found is not None:
        return found
    # No more is searched than the answer needs.
    texts: list[bytes] = []
    banners = _each(virtual, _BANNER, start, end, budget)
    for address in _each(virtual, _SYSNAME, start, end, budget):
        found = _uts_at(virtual, address)
        if found is None:
            continue
        if any(_agree(found, text) for text in texts):
            return found
        for at in banners:
            text = _read(virtual, at, MAX_BANNER)
            if text is not None:
                texts.append(text.partition(b"\n")[0])
                if _agree(found, texts[-1]):
                    return found
    return None


def _behind(virtual: AddressSpace, banner: int, end: int, budget: Budget) -> GuestKernel | None:
    """The kernel of the banner at that address, if its uts struct is the first one behind it.

    That is the order of an image: ``.rodata``, ``.data``. Else all matches have to be compared.
    """
    text = _read(virtual, banner, MAX_BANNER)
    names = _search(virtual, _SYSNAME, banner, end, budget, limit=1)
    if text is None or not names:
        return None
    found = _uts_at(virtual, names[0])
    return found if found is not None and _agree(found, text.partition(b"\n")[0]) else None


def recognise_frames(
    machine: AddressSpace, runs: Iterable[tuple[int, int]], budget: Budget
) -> GuestKernel | None:
    """The Linux kernel in the machine frames of one guest, given as runs: first frame, count.

    Containers have uts structs of their own; the kernel's first one has a fixed inode number.
    """
    # Both in the order in which they were found, each once: page caches hold many copies.
    kernels: dict[GuestKernel, bool] = {}
    banners: dict[bytes, None] = {}
    remaining = MAX_GUEST_FRAMES
    for first, count in runs:
        start, end = first * PAGE, (first + min(count, remaining)) * PAGE
        size = end - start
        texts = _banners(machine, start, end, budget, size)
        banners |= dict.fromkeys(texts[: MAX_KERNEL_CANDIDATES - len(banners)])
        names = _search(machine, _SYSNAME, start, end, budget, size)
        for at in names[: MAX_KERNEL_CANDIDATES - len(kernels)]:
            data = _read(machine, at, _SIZE + _INODE_WITHIN) or _read(machine, at, _SIZE)
            kernel = None if data is None else _parse(data[:_SIZE], None)
            if data is not None and kernel is not None:
                is_first = _INIT_INODE in data[_SIZE:]
                kernels[kernel] = is_first or kernels.get(kernel, False)
        remaining -= count
        if remaining <= 0 or budget.exhausted:
            break
    for kernel in sorted(kernels, key=lambda one: (not kernels[one], one.nodename == "(none)")):
        if any(_agree(kernel, banner) for banner in banners):
            return kernel
    return None


def _search(
    space: AddressSpace,
    needle: bytes,
    start: int,
    end: int,
    budget: Budget,
    size: int = MAX_KERNEL_IMAGE,
    limit: int = MAX_KERNEL_CANDIDATES,
) -> list[int]:
    """The addresses of a needle in the first ``size`` bytes that are mapped, within the budget."""
    size = min(size, budget.remaining)
    found = space.search(needle, start, end, limit=limit, most=size)
    budget.spend(min(found.searched, size))
    return found.addresses


def _each(
    space: AddressSpace, needle: bytes, start: int, end: int, budget: Budget
) -> Iterator[int]:
    """The same addresses, searched for when they are needed."""
    size = MAX_KERNEL_IMAGE
    # A search reads ahead, so that there are two of them and not one for each.
    for limit in (_FIRST, MAX_KERNEL_CANDIDATES - _FIRST):
        most = min(size, budget.remaining)
        found = space.search(needle, start, end, limit=limit, most=most)
        budget.spend(min(found.searched, most))
        yield from found.addresses
        if len(found.addresses) < limit:
            return
        size -= min(found.searched, size)
        start = found.addresses[-1] + 1


def _banners(
    space: AddressSpace, start: int, end: int, budget: Budget, size: int = MAX_KERNEL_IMAGE
) -> list[bytes]:
    """The lines that may be a kernel's banner."""
    found = _search(space, _BANNER, start, end, budget, size)
    texts = (_read(space, at, MAX_BANNER) for at in found)
    return [text.partition(b"\n")[0] for text in texts if text is not None]


def _agree(kernel: GuestKernel, banner: bytes) -> bool:
    """Whether a banner is the kernel's: it starts with the release and ends with the version."""
    text = banner.decode("utf-8", "backslashreplace")
    start = f"{_BANNER.decode()}{kernel.release} "
    return text.startswith(start) and text.endswith(kernel.version)


def _uts_at(virtual: AddressSpace, address: int) -> GuestKernel | None:
    """The ``struct new_utsname`` at ``address``, if a running kernel's is there."""
    data = _read(virtual, address, _SIZE)
    return None if data is None else _parse(data, address)


def _parse(data: bytes, address: int | None) -> GuestKernel | None:
    """A running kernel's ``struct new_utsname``; None for other bytes."""
    fields = {}
    for i, name in enumerate(_UTS):
        field, _, rest = data[i * _FIELD : (i + 1) * _FIELD].partition(b"\0")
        if name in ("sysname", "release", "version", "machine") and (
            # The rest of a nodename may have the end of a longer one that was set before.
            not field or rest.strip(b"\0")
        ):
            return None
        fields[name] = field.decode("utf-8", "backslashreplace")
    # "#1 SMP ...". An image of Linux 6.1 also has copies of the struct and of the banner with
    # "# SMP ...", from the first stage of its link.
    number, version = fields["version"][:1], fields["version"][1:2]
    if fields["sysname"] != "Linux" or number != "#" or not version.isdigit():
        return None
    return GuestKernel(
        fields["nodename"], fields["release"], fields["version"], fields["machine"], address
    )


def _read(virtual: AddressSpace, address: int, size: int) -> bytes | None:
    try:
        return virtual.read(address, size)
    except MemoryFault:
        return None
