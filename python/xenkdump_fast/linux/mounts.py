"""Mounted file systems: the mounts of a namespace, and what is open or dirty on them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from .._native import AbsentError, MemoryFault
from ..isolation import isolated
from ..limits import MAX_DIRTY_INODES, MAX_MOUNTS, MAX_WRITEBACKS
from . import trees
from .kernel import Kernel
from .linked_structs import LinkedStructs
from .paths import UNKNOWN, Paths
from .structs import Structs, batches

_MEMBERS = ("mount.mnt.mnt_sb", "mount.mnt.mnt_root", "mount.mnt_id")
#: Lists of dirty inodes in struct bdi_writeback; the last one since 4.0 (0ae45f63d4ef).
_DIRTY = ("b_dirty", "b_io", "b_more_io", "b_dirty_time")


class Mount(NamedTuple):
    """One mount."""

    #: Address of the struct mount, and of the struct vfsmount in it.
    address: int
    vfsmount: int
    #: The dentry at its root.
    root: int
    super_block: int
    #: Its number, as in /proc/PID/mountinfo.
    number: int
    #: The name of the file system, with its subtype as in ``fuse.sshfs``.
    type: str
    device: str
    #: Where it is mounted.
    path: str


def mounts(kernel: Kernel, namespace: int) -> list[Mount]:
    """The mounts of the ``mnt_namespace`` at an address, in its order.

    Those that cannot be read are left out with a warning. AbsentError if the layout is not known.
    """
    inside = kernel.offset("mount.mnt")
    paths = Paths(kernel)
    found: list[Mount] = []
    types: dict[int, str] = {}
    for batch in batches(_addresses(kernel, namespace)):
        structs = Structs(kernel, batch, _MEMBERS)
        for at in batch:
            with isolated(f"the mount at {at:#x} cannot be read", kernel.warn):
                block, root, number = (structs.read(at, name) for name in _MEMBERS)
                if not block:
                    continue  # a reader's place in the list: 5.8 (9f6c61f96f2d) to 6.8
                if block not in types:
                    types[block] = _type(kernel, block)
                device = kernel.text(at, "mount.mnt_devname")
                vfsmount = at + inside & kernel.last
                found.append(Mount(at, vfsmount, root, block, number, types[block], device, ""))
    texts = [UNKNOWN] * len(found)
    with isolated("paths of mounts cannot be read", kernel.warn):
        texts = paths.texts([one.vfsmount for one in found], [one.root for one in found])
    return [one._replace(path=text) for one, text in zip(found, texts, strict=True)]


def _addresses(kernel: Kernel, namespace: int) -> Iterator[int]:
    """The addresses of the mounts of a namespace; a warning if it is damaged."""
    # 6.8 (2eea9ce4310d): a red-black tree in place of a list. There was a number of mounts with the
    # name ``mounts`` before.
    if kernel.has("mnt_namespace.list"):
        structs = LinkedStructs(kernel, "mount.mnt_list", MAX_MOUNTS)
        yield from structs.list(namespace + kernel.offset("mnt_namespace.list"))
    elif kernel.has("mount.mnt_node"):
        structs = LinkedStructs(kernel, "mount.mnt_node", MAX_MOUNTS)
        root = namespace + kernel.offset("mnt_namespace.mounts")
        with isolated("mounts are missing", kernel.warn):
            yield from structs.of(entry.value for entry in trees.walk(kernel, "rbtree", root))
    else:
        raise AbsentError(
            f"{kernel.image.path}: how a namespace lists its mounts is not known: "
            "there is neither mnt_namespace.list nor mount.mnt_node"
        )


def _type(kernel: Kernel, block: int) -> str:
    name = kernel.text(kernel.read(block, "super_block.s_type"), "file_system_type.name", 64)
    with suppress(AbsentError):
        subtype = kernel.text(block, "super_block.s_subtype", 64)
        if subtype:
            return f"{name}.{subtype}"
    return name


def containing(kernel: Kernel, known: Sequence[Mount], address: int) -> list[Mount]:
    """The mounts that an address belongs to.

    It is that of a mount, a vfsmount, a super block, or of a dentry or an inode of a file system.
    """
    exact = [one for one in known if address in (one.address, one.vfsmount, one.super_block)]
    if exact:
        return exact
    for member in ("dentry.d_sb", "inode.i_sb"):
        with suppress(MemoryFault):
            block = kernel.read(address, member)
            found = [one for one in known if one.super_block == block]
            if found:
                return found
    return []


def super_blocks(kernel: Kernel, inodes: Iterable[int]) -> dict[int, int]:
    """The super block of each inode that can be read; a warning for each other one."""
    found: dict[int, int] = {}
    member = kernel.numeric("inode.i_sb")
    for batch in batches(at for at in dict.fromkeys(inodes) if at):
        structs = Structs(kernel, batch, [member])
        for at in batch:
            with isolated(f"the inode at {at:#x} cannot be read", kernel.warn, MemoryFault):
                found[at] = structs.read(at, member)
    return found


def dirty_inodes(kernel: Kernel, blocks: Iterable[int]) -> dict[int, list[int]]:
    """The inodes of each super block that wait for being written, by the lists of its device."""
    found: dict[int, list[int]] = {block: [] for block in blocks}
    devices: dict[int, None] = {}
    for block in found:
        with isolated(f"the super block at {block:#x} cannot be read", kernel.warn):
            devices[kernel.read(block, "super_block.s_bdi")] = None
    heads: list[int] = []
    writebacks = LinkedStructs(kernel, "bdi_writeback.bdi_node", MAX_WRITEBACKS)
    lists = [name for name in _DIRTY if kernel.has(f"bdi_writeback.{name}")]
    if not lists:
        raise kernel.untyped("no type information for the lists of dirty inodes")
    for device in devices:
        if not device:
            continue
        for writeback in writebacks.list(device + kernel.offset("backing_dev_info.wb_list")):
            heads += [writeback + kernel.offset(f"bdi_writeback.{name}") for name in lists]
    inodes = LinkedStructs(kernel, "inode.i_io_list", MAX_DIRTY_INODES)
    for walked in inodes.lists(heads):
        if walked.problem is not None:
            kernel.warn(walked.problem)
        for inode, block in super_blocks(kernel, walked.entries).items():
            if block in found:
                found[block].append(inode)
    return found
