"""Open files of processes."""

import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from typing import NamedTuple

from .._native import AbsentError
from ..budget import Budget, BudgetExceededError
from ..isolation import isolated
from ..limits import MAX_OPEN_FILES
from .kernel import Kernel
from .paths import Paths
from .structs import Structs, batches
from .tasks import Task

_TYPE_BITS = stat.S_IFMT(0xFFFF)
#: The names that crash gives to the types of inodes.
_TYPES = {
    stat.S_IFREG: "REG",
    stat.S_IFDIR: "DIR",
    stat.S_IFLNK: "LNK",
    stat.S_IFCHR: "CHR",
    stat.S_IFBLK: "BLK",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "SOCK",
}
#: File systems whose dentries have no path, and what /proc shows instead: with the inode's
#: number, or with the dentry's name.
_ANONYMOUS = "anon_inode:"
_WITHOUT_PATH = {"pipefs": "pipe", "sockfs": "socket", "anon_inodefs": _ANONYMOUS}
_FILE_SYSTEM = "super_block.s_type"


class File(NamedTuple):
    """One open file."""

    #: The descriptor.
    number: int
    #: Address of the struct file.
    address: int
    dentry: int
    inode: int
    #: As crash names it: REG, DIR, CHR, ...; empty if it is not known.
    type: str
    path: str


class OpenFiles(NamedTuple):
    """The open files of a process."""

    #: Paths of its root and its working directory; None if it has none.
    root: str | None
    directory: str | None
    files: Sequence[File]


def open_files(kernel: Kernel, tasks: Sequence[Task]) -> dict[int, OpenFiles]:
    """The open files of each task, by its address; of those that have exited none.

    What cannot be read is left out with a warning. Raises AbsentError if the types are not known.
    """
    return _Reader(kernel).read(tasks)


def _table(files: int) -> str:
    return f"the table of descriptors of files_struct {files:#x}"


#: Type of an inode, and what /proc shows instead of a path; None for a path.
_Inode = tuple[str, str | None]
_NOT_READ: _Inode = "", None


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._paths = Paths(kernel)

    def read(self, tasks: Sequence[Task]) -> dict[int, OpenFiles]:
        owners = self._of_tasks({task.address: task.pid for task in tasks})
        # Threads share them, and kernel threads those of init.
        places = dict.fromkeys(owners.values())
        descriptors = self._descriptors(dict.fromkeys(table for _, table in places))
        every = {at: None for used in descriptors.values() for _, at in used}
        members = ["file.f_path.mnt", "file.f_path.dentry", "file.f_inode"]
        files = self._rows(every, members, lambda at: f"the file at {at:#x}")
        members = [
            f"fs_struct.{where}.{what}" for where in ("root", "pwd") for what in ("mnt", "dentry")
        ]
        homes = self._rows(
            dict.fromkeys(home for home, _ in places),
            members,
            lambda at: f"the fs_struct at {at:#x}",
        )
        inodes = self._inodes({inode: None for _, _, inode in files.values()})
        mounts: list[int | None] = []
        dentries: list[int] = []
        for mount, dentry, inode in files.values():
            _, label = inodes.get(inode, _NOT_READ)
            if label is None or label == _ANONYMOUS:
                mounts.append(mount if label is None else None)
                dentries.append(dentry)
        for root_mount, root, mount, directory in homes.values():
            mounts += root_mount, mount
            dentries += root, directory
        texts = iter(self._paths.texts(mounts, dentries))
        shown: dict[int, tuple[int, int, int, str, str]] = {}
        for at, (_, dentry, inode) in files.items():
            kind, label = inodes.get(inode, _NOT_READ)
            if label is None:
                label = next(texts)
            elif label == _ANONYMOUS:
                label += next(texts)
            shown[at] = at, dentry, inode, kind, label
        # A tuple's own constructor: that of a NamedTuple is a function in Python.
        new = tuple.__new__
        opened = {
            # Faster than (number, *shown[at]), which makes a list first.
            table: [new(File, (number,) + shown[at]) for number, at in used if at in shown]
            for table, used in descriptors.items()
        }
        directories = dict(zip(homes, zip(texts, texts, strict=True), strict=True))
        found = {}
        for home, table in places:
            root_text, directory_text = directories.get(home, (None, None))
            found[home, table] = OpenFiles(root_text, directory_text, opened.get(table, []))
        return {at: found[place] for at, place in owners.items()}

    def _rows(
        self, addresses: Iterable[int], members: Sequence[str], what: Callable[[int], str]
    ) -> dict[int, tuple[int, ...]]:
        """The numbers in these members of each struct. What cannot be read gets a warning."""
        kernel = self._kernel
        found: dict[int, tuple[int, ...]] = {}
        for batch in batches(at for at in addresses if at):
            rows, problems = Structs(kernel, batch, members).table(*members)
            found.update(rows)
            for at, error in problems.items():
                kernel.warn(f"{what(at)} cannot be read: {error}")
        return found

    def _of_tasks(self, pids: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """The fs_struct and the files_struct of each task, by its address; 0 if it has none."""
        kernel = self._kernel
        members = "task_struct.fs", "task_struct.files"
        found: dict[int, tuple[int, int]] = {}
        for batch in batches(pids):
            structs = Structs(kernel, batch, members)
            columns = []
            for member in members:
                rows, problems = structs.column(member)
                columns.append(map(rows.get, batch, repeat(0)))
                for at, error in problems.items():
                    kernel.warn(f"the open files of task {pids[at]} cannot be read: {error}")
            found.update(zip(batch, zip(*columns, strict=True), strict=True))
        return found

    def _descriptors(self, tables: Iterable[int]) -> dict[int, list[tuple[int, int]]]:
        """The descriptors in use of each files_struct, with the struct file of each."""
        kernel = self._kernel
        found: dict[int, list[tuple[int, int]]] = {}
        fdts = self._rows(tables, ["files_struct.fdt"], _table)
        owners = {fdt: table for table, (fdt,) in fdts.items()}
        members = ["fdtable.max_fds", "fdtable.fd"]
        arrays = self._rows(owners, members, lambda at: _table(owners[at]))
        budget = kernel.object_budget("descriptors", kernel.word, MAX_OPEN_FILES)
        for batch in batches(table for table, (fdt,) in fdts.items() if fdt in arrays):
            rows = [arrays[fdts[table][0]] for table in batch]
            places = [array for _, array in rows]
            counts = self._charged(batch, [count & 0xFFFF_FFFF for count, _ in rows], budget)
            # The lowest bits are flags in some versions; a struct file is aligned to 8.
            read = kernel.virtual.pointers(places, counts, kernel.word, flags=7)
            for table, array, count, used in zip(batch, places, counts, read, strict=True):
                if used is None:
                    with isolated(f"{_table(table)} cannot be read", kernel.warn):
                        kernel.data(array, count * kernel.word)
                else:
                    found[table] = used
        return found

    def _charged(
        self, tables: Sequence[int], counts: Sequence[int], budget: Budget
    ) -> Sequence[int]:
        """The number of descriptors to read of each table with so many."""
        kernel = self._kernel
        total = sum(counts)
        if total <= budget.remaining:
            budget.spend(total)
            kernel.charge(total * kernel.word)
            return counts
        charged = []
        for table, count in zip(tables, counts, strict=True):
            try:
                budget.spend(count)
                kernel.charge(count * kernel.word)
            except BudgetExceededError as error:
                kernel.warn(f"{_table(table)} cannot be read: {error}")
                charged.append(0)
            else:
                charged.append(count)
        return charged

    def _inodes(self, addresses: Iterable[int]) -> dict[int, _Inode]:
        """What is known of each inode that can be read."""
        kernel = self._kernel
        members = ["inode.i_mode", "inode.i_ino", "inode.i_sb"]
        rows: dict[int, tuple[int, ...]] = {}
        for batch in batches(at for at in addresses if at):
            rows.update(Structs(kernel, batch, members).table(*members)[0])
        systems = self._file_systems({block: None for _, _, block in rows.values()})
        found = {}
        for at, (mode, number, block) in rows.items():
            label = _WITHOUT_PATH.get(systems.get(block, ""))
            if label is not None and label != _ANONYMOUS:
                label = f"{label}:[{number}]"
            found[at] = _TYPES.get(mode & _TYPE_BITS, ""), label
        return found

    def _file_systems(self, blocks: Iterable[int]) -> dict[int, str]:
        """The name of the file system of each super block whose name can be read."""
        kernel = self._kernel
        types: dict[int, int] = {}
        for batch in batches(at for at in blocks if at):
            types.update(Structs(kernel, batch, [_FILE_SYSTEM]).column(_FILE_SYSTEM)[0])
        names = kernel.file_systems
        for kind in set(types.values()).difference(names):
            with suppress(AbsentError):
                names[kind] = kernel.string(kernel.read(kind, "file_system_type.name"), 64)
        return {block: names[kind] for block, kind in types.items() if kind in names}
