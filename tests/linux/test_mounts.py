"""Mounts of both layouts, and damage in them."""

import re

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import mounts

from .objects import NOWHERE, OVERLAPPING, Objects, overlapping

COMMON = """
vfsmount: mnt_root mnt_sb
dentry: d_parent d_inode d_name.name d_name.len:4 d_sb
super_block: s_type s_subtype s_bdi
file_system_type: name
inode: i_sb i_io_list:16
backing_dev_info: wb_list:16
"""
LIST = (
    COMMON
    + """
mnt_namespace: list:16 mounts:4
mount: mnt_parent mnt_mountpoint mnt:0 mnt.mnt_root mnt.mnt_sb mnt_devname mnt_list:16 mnt_id:4
bdi_writeback: bdi_node:16 b_dirty:16 b_io:16 b_more_io:16
"""
)
TREE = (
    COMMON
    + """
rb_root: rb_node
rb_node: __rb_parent_color rb_right rb_left
mnt_namespace: mounts
mount: mnt_parent mnt_mountpoint mnt:0 mnt.mnt_root mnt.mnt_sb mnt_devname mnt_node:24 mnt_id:4
bdi_writeback: bdi_node:16 b_dirty:16 b_io:16 b_more_io:16
"""
)


class Namespace:
    """A root file system with another one on /a."""

    def __init__(self, layouts: str) -> None:
        self.objects = Objects(layouts)
        self.kernel = self.objects.kernel
        self.address = self.objects.make("mnt_namespace")
        self.block = self._block("ext4", 0)
        self.other = self._block("fuse", "sshfs")
        self.top = self.objects.make("dentry", d_name__name="/", d_name__len=1, d_sb=self.block)
        self.objects.set(self.top, "dentry", d_parent=self.top)
        name: dict[str, int | str] = {"d_name__name": "a", "d_name__len": 1}
        self.point = self.objects.make("dentry", d_parent=self.top, d_sb=self.block, **name)
        self.below = self.objects.make("dentry", d_name__name="/", d_name__len=1, d_sb=self.other)
        self.objects.set(self.below, "dentry", d_parent=self.below)
        self.first = self._mount(self.block, self.top, "/dev/root", 0, self.top, 1)
        self.second = self._mount(self.other, self.below, "host:", self.first, self.point, 2)
        if self.kernel.has("mnt_namespace.list"):
            self.link([self.first, self.second])
        else:
            node = self.kernel.offset("mount.mnt_node")
            self.objects.set(self.address, "mnt_namespace", mounts=self.first + node)
            self.objects.set(self.first + node, "rb_node", rb_right=self.second + node)
            color = self.first + node
            self.objects.set(self.second + node, "rb_node", __rb_parent_color=color)

    def _block(self, name: str, subtype: int | str) -> int:
        kind = self.objects.make("file_system_type", name=name)
        return self.objects.make("super_block", s_type=kind, s_subtype=subtype)

    def _mount(
        self, block: int, root: int, device: str, parent: int, point: int, number: int
    ) -> int:
        at = self.objects.make(
            "mount", mnt__mnt_sb=block, mnt__mnt_root=root, mnt_devname=device, mnt_id=number
        )
        self.objects.set(at, "mount", mnt_parent=parent or at, mnt_mountpoint=point)
        return at

    def link(self, found: list[int]) -> None:
        """Makes a list of the mounts."""
        at = self.kernel.offset("mount.mnt_list")
        self.objects.link(self.address, [mount + at for mount in found])

    def read(self) -> list[mounts.Mount]:
        return mounts.mounts(self.kernel, self.address)


@pytest.mark.parametrize("layouts", [LIST, TREE])
def test_both_layouts(layouts: str) -> None:
    made = Namespace(layouts)
    first, second = made.read()
    assert first == mounts.Mount(
        made.first, made.first + 16, made.top, made.block, 1, "ext4", "/dev/root", "/"
    )
    assert second == mounts.Mount(
        made.second, made.second + 16, made.below, made.other, 2, "fuse.sshfs", "host:", "/a"
    )
    assert made.kernel.warnings == []


def test_a_place_of_a_reader() -> None:
    made = Namespace(LIST)
    cursor = made.objects.make("mount")
    made.link([made.first, cursor, made.second])
    assert [one.number for one in made.read()] == [1, 2]
    assert made.kernel.warnings == []


def test_unknown_layout() -> None:
    made = Namespace(LIST)
    del made.kernel.types.layouts["mnt_namespace.list"]  # type: ignore[attr-defined]
    made.kernel._members.clear()
    made.kernel._missing.clear()
    with pytest.raises(AbsentError, match=re.escape("how a namespace lists its mounts")):
        made.read()


@pytest.mark.parametrize("layouts", [LIST, TREE])
@pytest.mark.parametrize(
    ("struct", "member", "value"),
    [
        ("mount", "mnt__mnt_sb", NOWHERE),
        ("mount", "mnt_devname", NOWHERE),
        ("super_block", "s_type", NOWHERE),
    ],
)
def test_a_damaged_mount(layouts: str, struct: str, member: str, value: int) -> None:
    made = Namespace(layouts)
    at = made.second if struct == "mount" else made.other
    made.objects.set(at, struct, **{member: value})
    assert [one.number for one in made.read()] == [1]
    assert any("cannot be read" in text for text in made.kernel.warnings)


@pytest.mark.parametrize("layouts", [LIST, TREE])
def test_the_end_is_unreadable(layouts: str) -> None:
    made = Namespace(layouts)
    name = "mnt_list" if layouts == LIST else "mnt_node"
    size = 0 if layouts == LIST else 16
    made.kernel.memory.number(made.second + made.kernel.offset(f"mount.{name}") + size, NOWHERE, 8)
    assert [one.number for one in made.read()][:1] == [1]
    assert made.kernel.warnings != []


def test_a_loop() -> None:
    made = Namespace(LIST)
    at = made.kernel.offset("mount.mnt_list")
    made.kernel.memory.number(made.second + at, made.first + at, 8)
    assert [one.number for one in made.read()] == [1, 2]
    assert any("loops back" in text for text in made.kernel.warnings)


def test_mounts_on_each_other() -> None:
    """A cycle of parents does not hang."""
    made = Namespace(LIST)
    made.objects.set(made.first, "mount", mnt_parent=made.second, mnt_mountpoint=made.below)
    made.objects.set(made.second, "mount", mnt_parent=made.first, mnt_mountpoint=made.top)
    assert len(made.read()) == 2


def test_more_than_the_dump_can_hold() -> None:
    made = Namespace(LIST)
    made.kernel.memory_held = made.kernel.types.sizeof("mount")
    assert [one.number for one in made.read()] == [1]
    text = "breaks off after 1 entries: at most 1 structs mount are read"
    assert any(warning.endswith(text) for warning in made.kernel.warnings)


def test_overlapping_mounts() -> None:
    made = Namespace(LIST)
    overlapping(made.kernel, made.address + made.kernel.offset("mnt_namespace.list"))
    made.kernel.memory.reads = 0
    assert made.read() == []
    assert made.kernel.memory.reads - made.kernel.memory.walked < 100
    assert any("the struct mount at" in text for text in made.kernel.warnings)


@pytest.mark.parametrize("layouts", [LIST, TREE])
def test_many_mounts(layouts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MAX_MOUNTS", 1)
    made = Namespace(layouts)
    assert [one.number for one in made.read()] == [1]
    assert any("at most 1 structs mount are read" in text for text in made.kernel.warnings)


def test_overlapping_writebacks() -> None:
    made = Namespace(LIST)
    device = made.objects.make("backing_dev_info")
    made.objects.set(made.block, "super_block", s_bdi=device)
    overlapping(made.kernel, device + made.kernel.offset("backing_dev_info.wb_list"))
    made.kernel.memory.reads = 0
    assert len(mounts.dirty_inodes(made.kernel, [made.block])[made.block]) <= 1
    # One bdi_writeback has three lists.
    assert made.kernel.memory.walked <= 4 * OVERLAPPING
    assert made.kernel.memory.reads - made.kernel.memory.walked < 100
    assert any("the struct bdi_writeback at" in text for text in made.kernel.warnings)


def test_which_mounts_an_address_belongs_to() -> None:
    made = Namespace(LIST)
    first, second = made.read()
    inode = made.objects.make("inode", i_sb=made.other)
    for address, expected in [
        (made.first, [first]),
        (second.vfsmount, [second]),
        (made.block, [first]),
        (made.point, [first]),
        (inode, [second]),
        (made.address, []),
        (NOWHERE, []),
        (2**64 - 1, []),
    ]:
        assert mounts.containing(made.kernel, (first, second), address) == expected


def test_an_inode_that_cannot_be_read() -> None:
    """Its file is counted for no file system, with a warning."""
    made = Namespace(LIST)
    inode = made.objects.make("inode", i_sb=made.block)
    assert mounts.super_blocks(made.kernel, [inode, 0, NOWHERE]) == {inode: made.block}
    (warning,) = made.kernel.warnings
    assert warning.startswith(f"the inode at {NOWHERE:#x} cannot be read")


def test_dirty_inodes() -> None:
    made = Namespace(LIST)
    objects, offset = made.objects, made.kernel.offset
    device = objects.make("backing_dev_info")
    writeback = objects.make("bdi_writeback")
    objects.link(device + offset("backing_dev_info.wb_list"), [writeback])
    inodes = [objects.make("inode", i_sb=made.block) for _ in range(3)]
    stranger = objects.make("inode", i_sb=NOWHERE)
    nodes = [inode + offset("inode.i_io_list") for inode in [*inodes, stranger]]
    objects.link(writeback + offset("bdi_writeback.b_dirty"), nodes[1:])
    objects.link(writeback + offset("bdi_writeback.b_io"), nodes[:1])
    objects.link(writeback + offset("bdi_writeback.b_more_io"), [])
    objects.set(made.block, "super_block", s_bdi=device)
    found = mounts.dirty_inodes(made.kernel, [made.block, made.other])
    assert found == {made.block: [*inodes[1:], inodes[0]], made.other: []}
    assert made.kernel.warnings == []
    # A list that leads into another one.
    made.kernel.memory.number(nodes[3], nodes[0], 8)
    assert len(mounts.dirty_inodes(made.kernel, [made.block])[made.block]) == 3
    assert made.kernel.warnings != []
