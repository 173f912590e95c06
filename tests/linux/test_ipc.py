"""System V IPC, and damage in it."""

import pytest

from xenkdump_fast.linux import ipc
from xenkdump_fast.linux.ipc import Pages, Permissions

from .fakes import FakeMember
from .objects import NOWHERE, Objects

LAYOUTS = """
ipc_namespace: count ids:192
ipc_ids: in_use:8 ipcs_idr:16 more:40
idr: idr_rt:16
xarray: flags xa_head
xa_node: shift:1 pad:7 slots:512
kern_ipc_perm: lock id:4 key:4 uid.val:4 mode:2 pad:2
shmid_kernel: pad shm_perm:24 shm_segsz shm_nattch shm_file
sem_array: sem_perm:24 sem_nsems:4
msg_queue: q_perm:24 q_cbytes q_qnum
file: f_inode
inode: i_sb i_mapping
super_block: s_type
file_system_type: name
address_space: nrpages
shmem_inode_info: swapped vfs_inode:32
"""


class Namespace:
    """Two segments; entries of an IDR of the given kind can be replaced."""

    def __init__(self) -> None:
        self.objects = Objects(LAYOUTS)
        self.kernel = self.objects.kernel
        slots = self.kernel.member("xa_node.slots")
        assert isinstance(slots, FakeMember)
        slots.count = 64
        self.address = self.objects.make("ipc_namespace")
        self.first, self.second = self._segment(0, 0o1600), self._segment(1, 0o3644)

    def _segment(self, number: int, mode: int) -> int:
        at = self.objects.make("shmid_kernel", shm_segsz=5000, shm_nattch=2)
        self.permissions(at + 8, number, mode)
        return at

    def permissions(self, at: int, number: int, mode: int) -> None:
        values: dict[str, int | str] = {"id": number, "key": -2, "mode": mode}
        self.objects.set(at, "kern_ipc_perm", uid__val=1000, **values)

    def entries(self, kind: int, *entries: int) -> int:
        """The IDR of a kind has these entries; returns its node."""
        node = self.objects.make("xa_node")
        for i, entry in enumerate(entries):
            self.kernel.memory.number(node + 8 + 8 * i, entry, 8)
        ids = self.address + 8 + 64 * kind
        self.kernel.memory.number(ids + 8 + 8, node | 2, 8)
        return node


def test_segments() -> None:
    made = Namespace()
    made.entries(2, made.first + 8, made.second + 8)
    first, second = ipc.segments(made.kernel, made.address)
    assert first == ipc.Segment(made.first, Permissions(0xFFFFFFFE, 0, 1000, 0o1600), 5000, 2, None)
    assert (first.status, second.status) == ("dest", "dest locked")
    assert made.kernel.warnings == []


@pytest.mark.parametrize(("system", "counts"), [("tmpfs", (3, 4)), ("hugetlbfs", (None, None))])
def test_pages(system: str, counts: tuple[int | None, int | None]) -> None:
    made = Namespace()
    made.entries(2, made.first + 8)
    kind = made.objects.make("file_system_type", name=system)
    own = made.objects.make("shmem_inode_info", swapped=4)
    inode = own + made.kernel.offset("shmem_inode_info.vfs_inode")
    block = made.objects.make("super_block", s_type=kind)
    mapping = made.objects.make("address_space", nrpages=3)
    made.objects.set(inode, "inode", i_sb=block, i_mapping=mapping)
    made.objects.set(made.first, "shmid_kernel", shm_file=made.objects.make("file", f_inode=inode))
    (found,) = ipc.segments(made.kernel, made.address, pages=True)
    assert found.pages == Pages(inode, 2, *counts)
    made.objects.set(made.first, "shmid_kernel", shm_file=NOWHERE)
    (found,) = ipc.segments(made.kernel, made.address, pages=True)
    assert found.pages is None
    assert "are not known" in made.kernel.warnings[0]


def test_semaphores_and_queues() -> None:
    made = Namespace()
    semaphores = made.objects.make("sem_array", sem_nsems=5)
    made.permissions(semaphores, 7, 0o640)
    queue = made.objects.make("msg_queue", q_cbytes=70, q_qnum=2)
    made.permissions(queue, 9, 0o622)
    made.entries(0, semaphores)
    made.entries(1, queue)
    (found,) = ipc.semaphores(made.kernel, made.address)
    assert found[2:] == (5,)
    (other,) = ipc.queues(made.kernel, made.address)
    assert (other.permissions.id, other.used, other.messages) == (9, 70, 2)


def test_none() -> None:
    made = Namespace()
    assert list(ipc.segments(made.kernel, made.address)) == []
    assert made.kernel.warnings == []


def test_an_unreadable_object() -> None:
    made = Namespace()
    made.entries(2, NOWHERE, made.second + 8)
    (found,) = ipc.segments(made.kernel, made.address)
    assert found.address == made.second
    assert "cannot be read" in made.kernel.warnings[0]


def test_damaged_trees() -> None:
    made = Namespace()
    node = made.entries(2, made.first + 8)
    # A node within itself, with a level too many.
    made.kernel.memory.number(node + 8 + 8, node | 2, 8)
    (found,) = ipc.segments(made.kernel, made.address)
    assert found.address == made.first
    assert "has the node" in made.kernel.warnings[0]
    # A root that is not mapped.
    made.kernel.memory.number(made.address + 8 + 128 + 16, NOWHERE | 2, 8)
    assert list(ipc.segments(made.kernel, made.address)) == []
    assert len(made.kernel.warnings) == 2
