"""Event channels by which a domain waits for another: of the xenstore, and of block devices."""

from contextlib import suppress
from typing import NamedTuple

from ..._native import AbsentError, Types
from .. import module_types
from ..kernel import Kernel
from . import devices

#: Names of the disks of xen-blkfront.
_DISKS = ("xvd", "hd", "sd")
_DRIVER = "xen_blkfront"


class EventChannel(NamedTuple):
    """A port of the waiting domain."""

    #: What it is for: "xenstore" or the name of a disk.
    use: str
    port: int
    #: The domain at the other end, if Linux records it.
    remote_domain: int | None


def of_xenstore(kernel: Kernel) -> EventChannel | None:
    """The event channel of the xenstore; None if it is not known."""
    with suppress(AbsentError):
        port = kernel.variable("xen_store_evtchn", 4)
        return EventChannel("xenstore", port, None) if 0 < port < 1 << 31 else None
    return None


def of_disk(kernel: Kernel, device: int) -> EventChannel | None:
    """The event channel of a disk's first ring, by its ``block_device``; None without one."""
    with suppress(AbsentError):
        disk = devices.disk_of(kernel, device)
        name = devices.of_disk(kernel, disk)
        if name is None or not name.startswith(_DISKS):
            return None
        types = _types(kernel)
        info = kernel.read(disk, "gendisk.private_data")

        def member(struct: int, path: str) -> int:
            found = types.member(path)
            return kernel.number(struct + found.offset, found.size)

        # Its own pointer to the disk proves the type.
        if not info or member(info, "blkfront_info.gd") != disk:
            return None
        xenbus = member(info, "blkfront_info.xbdev")
        ring = member(info, "blkfront_info.rinfo")
        port = member(ring, "blkfront_ring_info.evtchn")
        return EventChannel(name, port, member(xenbus, "xenbus_device.otherend_id"))
    return None


def _types(kernel: Kernel) -> Types:
    """The types of xen-blkfront, which may be built in."""
    native = kernel.types.native
    if native is not None:
        with suppress(AbsentError):
            native.member("blkfront_info.gd")
            return native
    return module_types.types_of(kernel, _DRIVER)
