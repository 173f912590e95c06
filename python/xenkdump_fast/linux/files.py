"""Open files of processes."""

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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
#: File systems whose dentries have no path, and what /proc shows in front of the inode's number.
_WITHOUT_PATH = {"pipefs": "pipe", "sockfs": "socket", "anon_inodefs": "anon_inode"}


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


#: Number, type and file system of an inode.
_Inode = tuple[int, str, str]


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._paths = Paths(kernel)

    def read(self, tasks: Sequence[Task]) -> dict[int, OpenFiles]:
        pids = {task.address: task.pid for task in tasks}
        places, tables = self._of_tasks(pids)
        descriptors = self._descriptors(dict.fromkeys(tables.values()))
        every = {at: None for used in descriptors.values() for _, at in used}
        members = ["file.f_path.mnt", "file.f_path.dentry", "file.f_inode"]
        files = self._rows(every, members, lambda at: f"the file at {at:#x}")
        members = [
            f"fs_struct.{where}.{what}" for where in ("root", "pwd") for what in ("mnt", "dentry")
        ]
        owners = dict.fromkeys(places.values())
        homes = self._rows(owners, members, lambda at: f"the fs_struct at {at:#x}")
        self._paths.load(
            {(mount, dentry) for mount, dentry, _ in files.values()}
            | {(mount, dentry) for mount, dentry, _, _ in homes.values()}
            | {(mount, dentry) for _, _, mount, dentry in homes.values()}
        )
        inodes = self._inodes({inode: None for _, _, inode in files.values()})
        shown = {
            at: (at, dentry, inode, *self._type_and_path((mount, dentry), inodes.get(inode)))
            for at, (mount, dentry, inode) in files.items()
        }
        # Threads share them.
        text = self._paths.text
        texts = {
            at: (text((mount, dentry)), text((own_mount, own)))
            for at, (mount, dentry, own_mount, own) in homes.items()
        }
        opened = {
            table: [File._make((number, *shown[at])) for number, at in used if at in shown]
            for table, used in descriptors.items()
        }
        found = {}
        for at in pids:
            root, directory = texts.get(places.get(at, 0), (None, None))
            found[at] = OpenFiles(root, directory, opened.get(tables.get(at, 0), []))
        return found

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

    def _of_tasks(self, pids: Mapping[int, int]) -> list[dict[int, int]]:
        """The fs_struct and the files_struct of each task, by its address."""
        kernel = self._kernel
        members = ["task_struct.fs", "task_struct.files"]
        found: list[dict[int, int]] = [{}, {}]
        for batch in batches(pids):
            structs = Structs(kernel, batch, members)
            for member, values in zip(members, found, strict=True):
                rows, problems = structs.column(member)
                values.update(rows)
                for at, error in problems.items():
                    kernel.warn(f"the open files of task {pids[at]} cannot be read: {error}")
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
            places: list[int] = []
            counts: list[int] = []
            for table in batch:
                count, array = arrays[fdts[table][0]]
                places.append(array & kernel.last)
                counts.append(self._charged(table, count & 0xFFFF_FFFF, budget))
            read = kernel.virtual.pointers(places, counts, kernel.word)
            for table, array, count, used in zip(batch, places, counts, read, strict=True):
                if used is None:
                    with isolated(f"{_table(table)} cannot be read", kernel.warn):
                        kernel.data(array, count * kernel.word)
                else:
                    # The lowest bits are flags in some versions; a struct file is aligned to 8.
                    found[table] = [(fd, at & ~7) for fd, at in used]
        return found

    def _charged(self, table: int, count: int, budget: Budget) -> int:
        """The number of descriptors to read of a table with so many."""
        kernel = self._kernel
        try:
            budget.spend(count)
            kernel.charge(count * kernel.word)
        except BudgetExceededError as error:
            kernel.warn(f"{_table(table)} cannot be read: {error}")
            return 0
        return count

    def _inodes(self, addresses: Iterable[int]) -> dict[int, _Inode]:
        """Number, type and file system of each inode that can be read."""
        kernel = self._kernel
        members = ["inode.i_mode", "inode.i_ino", "inode.i_sb"]
        rows: dict[int, tuple[int, ...]] = {}
        for batch in batches(at for at in addresses if at):
            rows.update(Structs(kernel, batch, members).table(*members)[0])
        systems = dict(self._file_systems(block for _, _, block in rows.values()))
        return {
            at: (number, _TYPES.get(mode & _TYPE_BITS, ""), systems.get(block, ""))
            for at, (mode, number, block) in rows.items()
        }

    def _file_systems(self, blocks: Iterable[int]) -> Iterator[tuple[int, str]]:
        """The name of the file system of each super block."""
        kernel = self._kernel
        for block in dict.fromkeys(blocks):
            with suppress(AbsentError):
                kind = kernel.read(block, "super_block.s_type")
                yield block, kernel.string(kernel.read(kind, "file_system_type.name"), 64)

    def _type_and_path(self, place: tuple[int, int], inode: _Inode | None) -> tuple[str, str]:
        number, kind, system = inode or (0, "", "")
        prefix = _WITHOUT_PATH.get(system)
        if prefix is None:
            return kind, self._paths.text(place)
        if prefix == "anon_inode":
            return kind, f"{prefix}:{self._paths.name(place[1])}"
        return kind, f"{prefix}:[{number}]"
