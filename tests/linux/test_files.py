"""Open files of tasks in fake memory: tables of both kinds, sharing, and what cannot be read."""

from types import SimpleNamespace
from typing import cast

import pytest

from xenkdump_fast.linux.files import File, OpenFiles, open_files
from xenkdump_fast.linux.tasks import Task

from .fakes import FakeTypes
from .objects import NOWHERE, Objects, structs

LAYOUTS = """
task_struct: fs files
files_struct: count fdt fdtab:0 fdtab.max_fds:4 fdtab.pad:4 fdtab.fd
fdtable: max_fds:4 pad:4 fd
file: f_path.mnt f_path.dentry f_inode
fs_struct: users root.mnt root.dentry pwd.mnt pwd.dentry
inode: i_mode:2 pad:6 i_ino i_sb
super_block: s_type
file_system_type: name
mount: mnt_parent mnt_mountpoint mnt:0 mnt.mnt_root
vfsmount: mnt_root
dentry: d_parent d_name.name d_name.len:4 pad:4
"""
REGULAR, FIFO = 0o100644, 0o010600


class Machine:
    """A root file system with the files ``a`` and ``b``, and a pipe."""

    def __init__(self, layouts: str = LAYOUTS) -> None:
        self.objects = objects = Objects(layouts)
        self.kernel = objects.kernel
        disk, pipes = (
            objects.make("super_block", s_type=objects.make("file_system_type", name=name))
            for name in ("ext4", "pipefs")
        )
        self.top = self.dentry("/", 0)
        objects.set(self.top, "dentry", d_parent=self.top)
        mount = objects.make("mount")
        objects.set(mount, "mount", mnt_parent=mount, mnt__mnt_root=self.top)
        self.mount = mount + self.kernel.offset("mount.mnt")
        self.fs = objects.make("fs_struct")
        self.a = self.file(self.dentry("a", self.top), REGULAR, 7, disk)
        self.b = self.file(self.dentry("b", self.top), REGULAR, 8, disk)
        self.pipe = self.file(self.dentry("", 0), FIFO, 99, pipes)
        for member, value in (("root.mnt", self.mount), ("root.dentry", self.top)):
            self.put(self.fs, f"fs_struct.{member}", value)
            self.put(self.fs, f"fs_struct.{member.replace('root', 'pwd')}", value)
        self.tasks: list[Task] = []

    def put(self, at: int, member: str, value: int) -> None:
        found = self.kernel.member(member)
        self.kernel.memory.number(at + found.offset, value, found.size)

    def dentry(self, name: str, parent: int) -> int:
        found = self.objects.make("dentry", d_parent=parent)
        self.put(found, "dentry.d_name.name", self.objects.string(name))
        self.put(found, "dentry.d_name.len", len(name))
        return found

    def file(self, dentry: int, mode: int, number: int, block: int) -> int:
        inode = self.objects.make("inode", i_mode=mode, i_ino=number, i_sb=block)
        found = self.objects.make("file", f_inode=inode)
        self.put(found, "file.f_path.mnt", self.mount)
        self.put(found, "file.f_path.dentry", dentry)
        return found

    def table(self, files: list[int], *, inside: bool = True) -> int:
        """A files_struct, whose fdtable is in it or elsewhere."""
        array = self.objects.reserve(8 * len(files))
        for i, file in enumerate(files):
            self.kernel.memory.number(array + i * 8, file, 8)
        found = self.objects.make("files_struct")
        at, struct = found + self.kernel.offset("files_struct.fdtab"), "files_struct.fdtab"
        if not inside:
            at = self.objects.make("fdtable")
        offset = self.kernel.offset(f"{struct}.max_fds") - self.kernel.offset(struct)
        self.kernel.memory.number(at + offset, len(files), 4)
        offset = self.kernel.offset(f"{struct}.fd") - self.kernel.offset(struct)
        self.kernel.memory.number(at + offset, array, 8)
        self.put(found, "files_struct.fdt", at)
        return found

    def task(self, fs: int, files: int) -> int:
        found = self.objects.make("task_struct", fs=fs, files=files)
        task = SimpleNamespace(address=found, pid=len(self.tasks) + 1)
        self.tasks.append(cast(Task, task))
        return found

    def read(self) -> dict[int, OpenFiles]:
        return open_files(self.kernel, self.tasks)


def numbered(files: OpenFiles) -> list[tuple[int, str, str]]:
    return [(one.number, one.type, one.path) for one in files.files]


@pytest.mark.parametrize("inside", [True, False])
def test_files(inside: bool) -> None:
    made = Machine()
    # The lowest bits of a pointer are flags.
    first = made.table([0, made.a | 3, 0, made.pipe], inside=inside)
    second = made.table([made.b, made.a])
    both = [made.task(made.fs, first), made.task(made.fs, first)]
    other, kernel_thread, exited = (
        made.task(made.fs, second),
        made.task(made.fs, made.table([])),
        made.task(0, 0),
    )
    found = made.read()
    assert list(found) == [*both, other, kernel_thread, exited]
    for task in both:
        assert found[task][:2] == ("/", "/")
        assert numbered(found[task]) == [(1, "REG", "/a"), (3, "FIFO", "pipe:[99]")]
    assert numbered(found[other]) == [(0, "REG", "/b"), (1, "REG", "/a")]
    assert found[kernel_thread] == ("/", "/", [])
    assert found[exited] == (None, None, [])
    one = found[other].files[1]
    assert isinstance(one, File)
    assert isinstance(found[other], OpenFiles)
    assert (one.address, one.dentry) == (made.a, made.kernel.read(made.a, "file.f_path.dentry"))
    assert made.kernel.warnings == []


def test_without_the_layout_of_the_fdtable_in_a_files_struct() -> None:
    """As a layout that is not of BTF or DWARF may be."""
    made = Machine()
    task = made.task(made.fs, made.table([made.a, made.pipe]))
    expected = made.read()
    inside = "files_struct.fdtab"
    known = {path: one for path, one in structs(LAYOUTS).items() if not path.startswith(inside)}
    made.kernel.__dict__["types"] = FakeTypes(known)
    for before in (made.kernel._members, made.kernel._numbers, made.kernel.spans):
        before.clear()
    assert made.read() == expected
    assert numbered(expected[task]) == [(0, "REG", "/a"), (1, "FIFO", "pipe:[99]")]


def test_what_cannot_be_read() -> None:
    made = Machine()
    good = made.task(made.fs, made.table([made.a, NOWHERE, made.b]))
    table = made.table([made.a], inside=False)
    made.put(table, "files_struct.fdt", NOWHERE + 8)
    lost_table = made.task(made.fs, table)
    lost_files = made.task(NOWHERE + 64, NOWHERE + 128)
    array = made.table([made.b])
    made.put(array, "files_struct.fdtab.fd", NOWHERE + 256)
    lost_array = made.task(made.fs, array)
    found = made.read()
    assert numbered(found[good]) == [(0, "REG", "/a"), (2, "REG", "/b")]
    assert found[lost_table] == ("/", "/", [])
    assert found[lost_array] == ("/", "/", [])
    assert found[lost_files] == (None, None, [])
    for at, what in (
        (table, f"the table of descriptors of files_struct {table:#x} cannot be read"),
        (array, f"the table of descriptors of files_struct {array:#x} cannot be read"),
        (NOWHERE, f"the file at {NOWHERE:#x} cannot be read"),
        (NOWHERE, f"the fs_struct at {NOWHERE + 64:#x} cannot be read"),
        (NOWHERE, f"the table of descriptors of files_struct {NOWHERE + 128:#x} cannot be read"),
    ):
        assert any(text.startswith(what) for text in made.kernel.warnings), (hex(at), what)
    assert len(made.kernel.warnings) == 5


def test_a_task_that_cannot_be_read() -> None:
    made = Machine()
    made.task(made.fs, made.table([made.a]))
    made.tasks.append(cast(Task, SimpleNamespace(address=NOWHERE, pid=77)))
    first, second = made.read().values()
    assert numbered(first) == [(0, "REG", "/a")]
    assert second == (None, None, [])
    assert made.kernel.warnings
    assert all(
        text.startswith("the open files of task 77 cannot be read") for text in made.kernel.warnings
    )


@pytest.mark.parametrize(
    ("struct", "member", "kind", "what"),
    [
        ("file", "f_inode", "", f"the inode at {NOWHERE:#x} cannot be read"),
        ("inode", "i_sb", "FIFO", f"the super block at {NOWHERE:#x} cannot be read"),
        ("super_block", "s_type", "FIFO", f"the name of the file_system_type at {NOWHERE:#x}"),
        ("file_system_type", "name", "FIFO", "the name of the file_system_type at "),
    ],
)
def test_a_file_whose_kind_cannot_be_read(struct: str, member: str, kind: str, what: str) -> None:
    """A pipe has the path of its dentry then, with a warning."""
    made = Machine()
    task = made.task(made.fs, made.table([made.a, made.pipe]))
    at = made.pipe
    for step in ("file.f_inode", "inode.i_sb", "super_block.s_type", "file_system_type.name"):
        if step == f"{struct}.{member}":
            break
        at = made.kernel.read(at, step)
    made.put(at, f"{struct}.{member}", NOWHERE)
    files = made.read()[task]
    assert numbered(files)[0] == (0, "REG", "/a")
    assert files.files[1].type == kind
    assert any(text.startswith(what) for text in made.kernel.warnings), made.kernel.warnings
