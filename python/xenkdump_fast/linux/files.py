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


#: Number and type of an inode, and what /proc shows in front of the number if there is no path.
_Inode = tuple[int, str, str | None]
_NOT_READ: _Inode = 0, "", None


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
        inodes = self._inodes({inode: None for _, _, inode in files.values()})
        needed = {(mount, dentry) for mount, dentry, _ in files.values()}
        for root_mount, root, mount, dentry in homes.values():
            needed.add((root_mount, root))
            needed.add((mount, dentry))
        self._paths.load(needed)
        text = self._paths.text
        # A tuple's own constructor: that of a NamedTuple is a function in Python.
        new = tuple.__new__
        shown: dict[int, tuple[int, int, int, str, str]] = {}
        for at, (mount, dentry, inode) in files.items():
            number, kind, prefix = inodes.get(inode, _NOT_READ)
            if prefix is None:
                path = text((mount, dentry))
            elif prefix == "anon_inode":
                path = f"{prefix}:{self._paths.name(dentry)}"
            else:
                path = f"{prefix}:[{number}]"
            shown[at] = at, dentry, inode, kind, path
        opened = {
            table: [new(File, (number, *shown[at])) for number, at in used if at in shown]
            for table, used in descriptors.items()
        }
        texts = {
            at: (text((mount, dentry)), text((own_mount, own)))
            for at, (mount, dentry, own_mount, own) in homes.items()
        }
        # Threads share them, and kernel threads those of init.
        known: dict[tuple[int, int], OpenFiles] = {}
        found = {}
        for at in pids:
            place = places.get(at, 0), tables.get(at, 0)
            if place not in known:
                root_text, directory = texts.get(place[0], (None, None))
                known[place] = OpenFiles(root_text, directory, opened.get(place[1], []))
            found[at] = known[place]
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
            rows = [arrays[fdts[table][0]] for table in batch]
            places = [array & kernel.last for _, array in rows]
            counts = self._charged(batch, [count & 0xFFFF_FFFF for count, _ in rows], budget)
            read = kernel.virtual.pointers(places, counts, kernel.word)
            for table, array, count, used in zip(batch, places, counts, read, strict=True):
                if used is None:
                    with isolated(f"{_table(table)} cannot be read", kernel.warn):
                        kernel.data(array, count * kernel.word)
                else:
                    # The lowest bits are flags in some versions; a struct file is aligned to 8.
                    found[table] = [(fd, at & ~7) for fd, at in used]
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
        systems = self._file_systems(block for _, _, block in rows.values())
        prefixes = {block: _WITHOUT_PATH.get(system) for block, system in systems}
        return {
            at: (number, _TYPES.get(mode & _TYPE_BITS, ""), prefixes.get(block))
            for at, (mode, number, block) in rows.items()
        }

    def _file_systems(self, blocks: Iterable[int]) -> Iterator[tuple[int, str]]:
        """The name of the file system of each super block."""
        kernel = self._kernel
        for block in dict.fromkeys(blocks):
            with suppress(AbsentError):
                kind = kernel.read(block, "super_block.s_type")
                yield block, kernel.string(kernel.read(kind, "file_system_type.name"), 64)
