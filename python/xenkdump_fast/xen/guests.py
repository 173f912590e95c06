"""Whose kernel a PV guest runs, without its vmlinux: by what every Linux keeps in its image.

``init_uts_ns`` (``system_utsname`` before 2.6.19) is a run of fixed strings; the ``linux_banner``
elsewhere in the image must name the same release. Both lie where x86 Linux maps its image.
"""

from collections.abc import Iterable
from typing import NamedTuple

from .._native import AddressSpace, MemoryFault
from ..budget import Allowance

_BANNER = b"Linux version "
#: struct new_utsname: six fields of 65 bytes; the first is "Linux" and 60 zeros.
_FIELD = 65
_UTS = ("sysname", "nodename", "release", "version", "machine", "domainname")
_SIZE = len(_UTS) * _FIELD
_SYSNAME = b"Linux".ljust(_FIELD, b"\0")
#: Where the image is mapped: __START_KERNEL_map on x86_64; on i386 from PAGE_OFFSET on, which
#: CONFIG_VMSPLIT moves. The longest image is far shorter than these.
_RANGES = {
    8: ((0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000),),
    4: ((0xC000_0000, 0xC800_0000), (0x8000_0000, 0x8800_0000), (0x4000_0000, 0x4800_0000)),
}
#: How often all of a dump may be searched: a page is one kernel's at most, two things are looked
#: for, and the first root that is tried may be another's.
SEARCHES = 4
#: As many banners, and as many uts structs, are compared.
_MANY = 64
#: More than any kernel's image; a hostile page table could map more than there is.
_MOST = 256 << 20
PAGE = 4096
#: Of a translated guest as many frames are looked through (2 GiB).
MOST_FRAMES = 1 << 19
#: ns.inum of init_uts_ns (PROC_UTS_INIT_INO, since 3.8), not far behind the names.
_INIT_INODE, _NEAR = 0xEFFF_FFFE.to_bytes(4, "little"), 128


class GuestKernel(NamedTuple):
    """What a guest's kernel says of itself."""

    nodename: str
    release: str
    version: str
    machine: str
    #: Virtual address of the ``struct new_utsname`` in it; None where that is not known.
    address: int | None


def recognise(
    virtual: AddressSpace, word: int, room: Allowance, hints: Iterable[int] = ()
) -> GuestKernel | None:
    """The Linux kernel that is mapped in ``virtual``; None where there is none, or no ``room``.

    ``hints`` are addresses where other guests had theirs: the same build has it in the same place.
    """
    for address in hints:
        found = _uts_at(virtual, address)
        if found is not None:
            return found
    for start, end in _RANGES[word]:
        banners = _banners(virtual, start, end, room)
        for address in _search(virtual, _SYSNAME, start, end, room) if banners else ():
            found = _uts_at(virtual, address)
            if found is not None and any(_agree(found, banner) for banner in banners):
                return found
    return None


def recognise_frames(
    machine: AddressSpace, runs: Iterable[tuple[int, int]], room: Allowance
) -> GuestKernel | None:
    """The Linux kernel in runs of machine frames that are one guest's: first frame, and how many.

    Containers have uts structs of their own; the kernel's first one is told by its inode number.
    """
    # Both in the order in which they were found, each once: page caches hold many copies.
    kernels: dict[GuestKernel, bool] = {}
    banners: dict[bytes, None] = {}
    left = MOST_FRAMES
    for first, count in runs:
        start, end = first * PAGE, (first + min(count, left)) * PAGE
        size = end - start
        texts = _banners(machine, start, end, room, size)
        banners |= dict.fromkeys(texts[: _MANY - len(banners)])
        names = _search(machine, _SYSNAME, start, end, room, size)
        for at in names[: _MANY - len(kernels)]:
            data = _read(machine, at, _SIZE + _NEAR) or _read(machine, at, _SIZE)
            kernel = None if data is None else _parse(data[:_SIZE], None)
            if data is not None and kernel is not None:
                is_first = _INIT_INODE in data[_SIZE:]
                kernels[kernel] = is_first or kernels.get(kernel, False)
        left -= count
        if left <= 0 or room.left == 0:
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
    room: Allowance,
    most: int = _MOST,
) -> list[int]:
    """Where a needle lies, in as much of what is mapped as may be looked through."""
    most = min(most, room.left)
    found, looked_through = space.search(needle, start, end, limit=_MANY, most=most)
    room.take(looked_through)
    return found


def _banners(
    space: AddressSpace, start: int, end: int, room: Allowance, most: int = _MOST
) -> list[bytes]:
    """The lines that may be a kernel's banner."""
    texts = (_read(space, at, 512) for at in _search(space, _BANNER, start, end, room, most))
    return [text.partition(b"\n")[0] for text in texts if text is not None]


def _agree(kernel: GuestKernel, banner: bytes) -> bool:
    """Whether a banner is that of the kernel: it starts with the release, ends with the version."""
    text = banner.decode("utf-8", "backslashreplace")
    start = f"{_BANNER.decode()}{kernel.release} "
    return text.startswith(start) and text.endswith(kernel.version)


def _uts_at(virtual: AddressSpace, address: int) -> GuestKernel | None:
    """The ``struct new_utsname`` at ``address``, if it is a living kernel's."""
    data = _read(virtual, address, _SIZE)
    return None if data is None else _parse(data, address)


def _parse(data: bytes, address: int | None) -> GuestKernel | None:
    """A living kernel's ``struct new_utsname``; None for other bytes."""
    fields = {}
    for i, name in enumerate(_UTS):
        field, _, rest = data[i * _FIELD : (i + 1) * _FIELD].partition(b"\0")
        if name in ("sysname", "release", "version", "machine") and (
            # The rest of a nodename may keep what was there before a shorter one was set.
            not field or rest.strip(b"\0")
        ):
            return None
        fields[name] = field.decode("utf-8", "backslashreplace")
    # "#1 SMP ...". A 6.1 image also has copies of both the struct and the banner that say "# SMP
    # ...", left by the first stage of its link.
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
