"""System V IPC: shared memory, semaphores and message queues of a namespace."""

from collections.abc import Iterator
from typing import NamedTuple

from ..isolation import isolated
from . import trees
from .kernel import Kernel

#: Indices in ipc_namespace.ids (ipc/util.h).
_SEMAPHORES, _MESSAGES, _MEMORY = range(3)
#: Bits of the mode of a segment (include/linux/shm.h), with the names of crash.
_STATUS = ((0o1000, "dest"), (0o2000, "locked"))
PAGE = 4096


class Permissions(NamedTuple):
    """What all objects have: struct kern_ipc_perm."""

    #: 0 of a private object (IPC_PRIVATE).
    key: int
    id: int
    uid: int
    #: With the bits of ``_STATUS``.
    mode: int


class Pages(NamedTuple):
    """The pages of a segment."""

    #: Address of the inode of its file.
    inode: int
    #: As many as its size needs.
    size: int
    #: In memory and in swap space; None of huge pages.
    resident: int | None
    swapped: int | None


class Segment(NamedTuple):
    """A segment of shared memory."""

    #: Address of the struct shmid_kernel.
    address: int
    permissions: Permissions
    size: int
    attached: int
    pages: Pages | None

    @property
    def status(self) -> str:
        """``locked``, and ``dest`` once it is to be destroyed with the last process that has it."""
        return " ".join(name for bit, name in _STATUS if self.permissions.mode & bit)


class Semaphores(NamedTuple):
    """A set of semaphores."""

    #: Address of the struct sem_array.
    address: int
    permissions: Permissions
    number: int


class Queue(NamedTuple):
    """A message queue."""

    #: Address of the struct msg_queue.
    address: int
    permissions: Permissions
    #: Bytes in the messages.
    used: int
    messages: int


def segments(kernel: Kernel, namespace: int, *, pages: bool = False) -> Iterator[Segment]:
    """The segments of the ``ipc_namespace`` at an address, by their indices.

    Those that cannot be read are left out with a warning. AbsentError if the layout is not known.
    """
    for at in _objects(kernel, namespace, _MEMORY, "shmid_kernel.shm_perm"):
        with isolated(f"the shared memory at {at:#x} cannot be read", kernel.warn):
            yield Segment(
                at,
                _permissions(kernel, at, "shmid_kernel.shm_perm"),
                kernel.read(at, "shmid_kernel.shm_segsz"),
                kernel.read(at, "shmid_kernel.shm_nattch"),
                _pages(kernel, at) if pages else None,
            )


def semaphores(kernel: Kernel, namespace: int) -> Iterator[Semaphores]:
    """The sets of semaphores, as ``segments``."""
    for at in _objects(kernel, namespace, _SEMAPHORES, "sem_array.sem_perm"):
        with isolated(f"the semaphores at {at:#x} cannot be read", kernel.warn):
            yield Semaphores(
                at,
                _permissions(kernel, at, "sem_array.sem_perm"),
                kernel.read(at, "sem_array.sem_nsems"),
            )


def queues(kernel: Kernel, namespace: int) -> Iterator[Queue]:
    """The message queues, as ``segments``."""
    for at in _objects(kernel, namespace, _MESSAGES, "msg_queue.q_perm"):
        with isolated(f"the message queue at {at:#x} cannot be read", kernel.warn):
            yield Queue(
                at,
                _permissions(kernel, at, "msg_queue.q_perm"),
                kernel.read(at, "msg_queue.q_cbytes"),
                kernel.read(at, "msg_queue.q_qnum"),
            )


def _objects(kernel: Kernel, namespace: int, kind: int, member: str) -> Iterator[int]:
    """The structs that have the entries of an IDR as their ``member``."""
    inside = kernel.offset(member)
    ids = namespace + kernel.offset("ipc_namespace.ids") + kind * kernel.types.sizeof("ipc_ids")
    root = ids + kernel.offset("ipc_ids.ipcs_idr") + kernel.offset("idr.idr_rt")
    with isolated(f"entries of the IDR at {root:#x} are missing", kernel.warn):
        for entry in trees.walk(kernel, "xarray", root & kernel.last):
            yield kernel.containing(entry.value, inside)


def _permissions(kernel: Kernel, at: int, member: str) -> Permissions:
    start = at + kernel.offset(member)
    return Permissions(
        kernel.read(start, "kern_ipc_perm.key") & 0xFFFF_FFFF,
        kernel.read(start, "kern_ipc_perm.id"),
        kernel.read(start, "kern_ipc_perm.uid.val"),
        kernel.read(start, "kern_ipc_perm.mode"),
    )


def _pages(kernel: Kernel, at: int) -> Pages | None:
    """The pages of a segment; None if its file is not known."""
    with isolated(f"the pages of the shared memory at {at:#x} are not known", kernel.warn):
        size = -(-kernel.read(at, "shmid_kernel.shm_segsz") // PAGE)
        inode = kernel.read(kernel.read(at, "shmid_kernel.shm_file"), "file.f_inode")
        block = kernel.read(inode, "inode.i_sb")
        system = kernel.read(block, "super_block.s_type")
        if kernel.text(system, "file_system_type.name", 16) != "tmpfs":
            return Pages(inode, size, None, None)
        own = kernel.containing(inode, kernel.offset("shmem_inode_info.vfs_inode"))
        mapping = kernel.read(inode, "inode.i_mapping")
        return Pages(
            inode,
            size,
            kernel.read(mapping, "address_space.nrpages"),
            kernel.read(own, "shmem_inode_info.swapped"),
        )
    return None
