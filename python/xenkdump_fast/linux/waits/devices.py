"""Block devices and file systems that folios, buffers and bios belong to."""

from contextlib import suppress
from typing import NamedTuple

from ..._native import AbsentError
from ..kernel import Kernel

#: Low bits of folio.mapping: anonymous memory, and pages of drivers.
_NO_FILE = 3
#: block_device.__bd_flags: the partition's number (6.10, 1116b9fa15c0).
_PARTITION = 0xFF
#: The file system that block devices themselves are files of.
_BDEV = "bdev"
_MAX_NAME = 32


class Device(NamedTuple):
    """What a wait for I/O is for."""

    #: As ``xvda1``, ``xvda1 (ext4)``, ``tmpfs``, ``xvda1, block 17``.
    text: str
    #: Its ``block_device``; None without one.
    address: int | None


def of_folio(kernel: Kernel, address: int, type_: str) -> Device | None:
    """The device, or the file system without one, of a ``folio`` or ``page``; None if not known."""
    with suppress(AbsentError):
        mapping = kernel.read(address, f"{type_}.mapping")
        if not mapping:
            return None
        if mapping & _NO_FILE:
            return Device("anonymous memory", None)
        inode = kernel.read(mapping, "address_space.host")
        superblock = kernel.read(inode, "inode.i_sb")
        system = kernel.read(superblock, "super_block.s_type")
        kind = kernel.string(kernel.read(system, "file_system_type.name"), _MAX_NAME)
        if kind == _BDEV:
            device = kernel.containing(inode, kernel.offset("bdev_inode.vfs_inode"))
            return _named(kernel, device, "")
        device = kernel.read(superblock, "super_block.s_bdev")
        return (_named(kernel, device, f" ({kind})") if device else None) or Device(kind, None)
    return None


def of_buffer(kernel: Kernel, address: int) -> Device | None:
    """The device and the block of a ``buffer_head``; None if they are not known."""
    with suppress(AbsentError):
        block = kernel.read(address, "buffer_head.b_blocknr")
        return _named(kernel, kernel.read(address, "buffer_head.b_bdev"), f", block {block}")
    return None


def of_bio(kernel: Kernel, address: int) -> Device | None:
    """The device of a ``bio``; None if it is not known."""
    with suppress(AbsentError):
        if kernel.has("bio.bi_bdev"):
            return _named(kernel, kernel.read(address, "bio.bi_bdev"), "")
        # 4.14 to 5.11 (74d46992e0d9, 309dca309fc3).
        partition = kernel.read(address, "bio.bi_partno")
        name = _disk(kernel, kernel.read(address, "bio.bi_disk"), partition)
        return None if name is None else Device(name, None)
    return None


def _named(kernel: Kernel, device: int, suffix: str) -> Device | None:
    name = of_device(kernel, device)
    return None if name is None else Device(name + suffix, device)


def disk_of(kernel: Kernel, device: int) -> int:
    """The ``gendisk`` of a ``block_device``; AbsentError."""
    return kernel.read(device, "block_device.bd_disk")


def of_device(kernel: Kernel, device: int) -> str | None:
    """The name of a ``block_device``, as ``xvda1``; None if it is not known."""
    with suppress(AbsentError):
        if kernel.has("block_device.__bd_flags.counter"):
            partition = kernel.read(device, "block_device.__bd_flags.counter") & _PARTITION
        else:
            partition = kernel.read(device, "block_device.bd_partno")
        return _disk(kernel, disk_of(kernel, device), partition)
    return None


def of_disk(kernel: Kernel, disk: int) -> str | None:
    """The name of a ``gendisk``; AbsentError if it cannot be read."""
    return _disk(kernel, disk, 0)


def _disk(kernel: Kernel, disk: int, partition: int) -> str | None:
    name = kernel.string(disk + kernel.offset("gendisk.disk_name"), _MAX_NAME)
    if not name:
        return None
    if not partition:
        return name
    return f"{name}p{partition}" if name[-1].isdigit() else f"{name}{partition}"
