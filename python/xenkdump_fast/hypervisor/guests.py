"""Whose kernel a PV guest runs, without its vmlinux: by what every Linux keeps in its image.

``init_uts_ns`` (``system_utsname`` before 2.6.19) is a run of fixed strings; the ``linux_banner``
elsewhere in the image must name the same release. Both lie where x86 Linux maps its image.
"""

from collections.abc import Iterable
from typing import NamedTuple

from .._native import AddressSpace, MemoryFault

_BANNER = b"Linux version "
#: struct new_utsname: six fields of 65 bytes; the first is "Linux" and 60 zeros.
_FIELD = 65
_UTS = ("sysname", "nodename", "release", "version", "machine", "domainname")
_SYSNAME = b"Linux".ljust(_FIELD, b"\0")
#: Where the image is mapped: __START_KERNEL_map on x86_64; on i386 from PAGE_OFFSET on, which
#: CONFIG_VMSPLIT moves. The longest image is far shorter than these.
_RANGES = {
    8: ((0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_C000_0000),),
    4: ((0xC000_0000, 0xC800_0000), (0x8000_0000, 0x8800_0000), (0x4000_0000, 0x4800_0000)),
}
#: More than any kernel's image; a hostile page table could map more than there is.
_MOST = 256 << 20


class GuestKernel(NamedTuple):
    """What a guest's kernel says of itself."""

    nodename: str
    release: str
    version: str
    machine: str
    #: Virtual address of the ``struct new_utsname`` in it.
    address: int


def recognise(virtual: AddressSpace, word: int, hints: Iterable[int] = ()) -> GuestKernel | None:
    """The Linux kernel that is mapped in ``virtual``; None where there is none.

    ``hints`` are addresses where other guests had theirs: the same build has it in the same place.
    """
    for address in hints:
        found = _uts_at(virtual, address)
        if found is not None:
            return found
    for start, end in _RANGES[word]:
        banners = [
            text
            for address in virtual.find(_BANNER, start, end, most=_MOST)
            if (text := _read(virtual, address, 512)) is not None
        ]
        for address in virtual.find(_SYSNAME, start, end, most=_MOST) if banners else ():
            found = _uts_at(virtual, address)
            if found is not None and any(_agree(found, banner) for banner in banners):
                return found
    return None


def _agree(kernel: GuestKernel, banner: bytes) -> bool:
    """Whether a banner is that of the kernel: it starts with the release, ends with the version."""
    text = banner.partition(b"\n")[0].decode("utf-8", "backslashreplace")
    start = f"{_BANNER.decode()}{kernel.release} "
    return text.startswith(start) and text.endswith(kernel.version)


def _uts_at(virtual: AddressSpace, address: int) -> GuestKernel | None:
    """The ``struct new_utsname`` at ``address``, if it is a living kernel's."""
    data = _read(virtual, address, len(_UTS) * _FIELD)
    if data is None:
        return None
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
    except (MemoryFault, OverflowError):
        return None
