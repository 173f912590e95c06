"""Open files of processes."""

import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, repeat
from operator import concat, itemgetter
from typing import NamedTuple, cast

from .._native import AbsentError
from ..budget import Budget, BudgetExceededError
from ..isolation import isolated
from ..limits import MAX_OPEN_FILES
from .kernel import Kernel
from .paths import Paths
from .structs import Structs, batches, read_columns
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
_TASK_MEMBERS = "task_struct.fs", "task_struct.files"
_TABLE_MEMBERS = "files_struct.fdt", "files_struct.fdtab.max_fds", "files_struct.fdtab.fd"
_FDTABLE_MEMBERS = "fdtable.max_fds", "fdtable.fd"
_FILE_MEMBERS = "file.f_path.mnt", "file.f_path.dentry", "file.f_inode"
_HOME_MEMBERS = (
    "fs_struct.root.mnt",
    "fs_struct.root.dentry",
    "fs_struct.pwd.mnt",
    "fs_struct.pwd.dentry",
)
_INODE_MEMBERS = "inode.i_mode", "inode.i_ino", "inode.i_sb"
#: Root and working directory of a process whose fs_struct is not known.
_NO_HOME = None, None
#: The parts of what ``AddressSpace.pointers`` returns for a descriptor.
_NUMBER, _POINTER = itemgetter(0), itemgetter(1)


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


def _alternating(first: Iterable[int], second: Iterable[int]) -> Iterable[int]:
    return chain.from_iterable(zip(first, second, strict=True))


def _opened(
    descriptors: Mapping[int, Sequence[tuple[int, int]]],
    shown: Mapping[int, tuple[int, int, int, str, str]],
) -> dict[int, list[File]]:
    """The open files of each table of descriptors, by what is shown of each struct file."""
    pairs = list(chain.from_iterable(descriptors.values()))
    rows = map(concat, zip(map(_NUMBER, pairs)), map(shown.__getitem__, map(_POINTER, pairs)))
    # A tuple's own constructor: that of a NamedTuple is a function in Python.
    files = list(map(tuple.__new__, repeat(File), rows))
    found = {}
    end = 0
    for table, used in descriptors.items():
        start = end
        end += len(used)
        found[table] = files[start:end]
    return found


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._paths = Paths(kernel)

    def read(self, tasks: Sequence[Task]) -> dict[int, OpenFiles]:
        # Most loops are within map() and zip(): no code in Python runs for each open file.
        addresses, owners, tables = self._of_tasks(tasks)
        # Threads share them, and kernel threads those of init.
        places = list(zip(owners, tables, strict=True))
        descriptors = self._descriptors(filter(None, dict.fromkeys(tables)))
        every = dict.fromkeys(map(_POINTER, chain.from_iterable(descriptors.values())))
        files, mounts, dentries, inodes = self._columns(
            every, _FILE_MEMBERS, lambda at: f"the file at {at:#x}"
        )
        homes, root_mounts, roots, home_mounts, directories = self._columns(
            filter(None, dict.fromkeys(owners)),
            _HOME_MEMBERS,
            lambda at: f"the fs_struct at {at:#x}",
        )
        kinds, labels = self._inodes(inodes)
        named = [i for i, label in enumerate(labels) if label is None or label == _ANONYMOUS]
        texts = self._paths.texts(
            [
                *(None if labels[i] else mounts[i] for i in named),
                *_alternating(root_mounts, home_mounts),
            ],
            [*(dentries[i] for i in named), *_alternating(roots, directories)],
        )
        for i, text in zip(named, texts, strict=False):
            labels[i] = (labels[i] or "") + text
        paths = cast("list[str]", labels)
        columns = zip(files, dentries, inodes, kinds, paths, strict=True)
        shown = dict(zip(files, columns, strict=True))
        if len(shown) < len(every):
            descriptors = {
                table: [pair for pair in used if pair[1] in shown]
                for table, used in descriptors.items()
            }
        opened = _opened(descriptors, shown)
        rest = iter(texts[len(named) :])
        of_homes = dict(zip(homes, zip(rest, rest, strict=True), strict=True))
        new = tuple.__new__
        found = {
            (home, table): new(OpenFiles, (*of_homes.get(home, _NO_HOME), opened.get(table, [])))
            for home, table in dict.fromkeys(places)
        }
        return dict(zip(addresses, map(found.__getitem__, places), strict=True))

    def _columns(
        self, addresses: Iterable[int], members: Sequence[str], what: Callable[[int], str] | None
    ) -> list[list[int]]:
        """The addresses of those structs that can be read, and the numbers in each member.

        What cannot be read gets a warning that says ``what`` it is.
        """
        kernel = self._kernel
        found: list[list[int]] = [[] for _ in range(1 + len(members))]
        for batch in batches(addresses):
            columns, problems = read_columns(kernel, batch, members)
            for column, more in zip(found, columns, strict=True):
                column.extend(more)
            if what is not None:
                for at, error in problems.items():
                    kernel.warn(f"{what(at)} cannot be read: {error}")
        return found

    def _of_tasks(self, tasks: Sequence[Task]) -> list[list[int]]:
        """The tasks, and the fs_struct and the files_struct of each; 0 if it has none."""
        found: list[list[int]] = [[], [], []]
        for batch in batches(dict.fromkeys([task.address for task in tasks])):
            columns, problems = read_columns(self._kernel, batch, _TASK_MEMBERS)
            if problems:
                columns = self._separately(batch, {task.address: task.pid for task in tasks})
            for column, more in zip(found, columns, strict=True):
                column.extend(more)
        return found

    def _separately(self, batch: list[int], pids: Mapping[int, int]) -> list[list[int]]:
        """The same for tasks of which some lack a member."""
        structs = Structs(self._kernel, batch, _TASK_MEMBERS)
        found = [batch]
        for member in _TASK_MEMBERS:
            rows, problems = structs.column(member)
            found.append([rows.get(at, 0) for at in batch])
            for at, error in problems.items():
                self._kernel.warn(f"the open files of task {pids[at]} cannot be read: {error}")
        return found

    def _arrays(self, tables: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
        """Those files_structs whose fdtable can be read: the size and the address of the array."""
        kernel = self._kernel
        arrays: dict[int, tuple[int, int]] = {}
        elsewhere = {}
        try:
            inside = kernel.offset("files_struct.fdtab")
            columns, problems = read_columns(kernel, tables, _TABLE_MEMBERS)
        except AbsentError:
            problems = dict.fromkeys(tables, AbsentError())
        if problems:
            tables, fdts = self._columns(tables, ["files_struct.fdt"], _table)
            elsewhere = dict(zip(fdts, tables, strict=True))
        else:
            # A process with few files has the fdtable within its files_struct.
            tables, fdts, sizes, starts = columns
            arrays = dict(zip(fdts, zip(sizes, starts, strict=True), strict=True))
            for table, fdt in zip(tables, fdts, strict=True):
                if fdt != table + inside:
                    elsewhere[fdt] = table
                    arrays.pop(fdt, None)
        if elsewhere:
            columns = self._columns(
                filter(None, elsewhere), _FDTABLE_MEMBERS, lambda at: _table(elsewhere[at])
            )
            rows = zip(*columns[1:], strict=True)
            arrays.update(zip(columns[0], rows, strict=True))
        if not elsewhere:
            return tables, list(arrays.values())
        read = [pair for pair in zip(tables, fdts, strict=True) if pair[1] in arrays]
        return [table for table, _ in read], [arrays[fdt] for _, fdt in read]

    def _descriptors(self, tables: Iterable[int]) -> dict[int, list[tuple[int, int]]]:
        """The descriptors in use of each files_struct, with the struct file of each."""
        kernel = self._kernel
        found: dict[int, list[tuple[int, int]]] = {}
        budget = kernel.object_budget("descriptors", kernel.word, MAX_OPEN_FILES)
        for batch in batches(tables):
            owners, rows = self._arrays(batch)
            places = [array for _, array in rows]
            counts = self._charged(owners, [count & 0xFFFF_FFFF for count, _ in rows], budget)
            # The lowest bits are flags in some versions; a struct file is aligned to 8.
            read = kernel.virtual.pointers(places, counts, kernel.word, flags=7)
            if None not in read:
                found.update(zip(owners, cast("list[list[tuple[int, int]]]", read), strict=True))
                continue
            for table, array, count, used in zip(owners, places, counts, read, strict=True):
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

    def _inodes(self, addresses: Sequence[int]) -> tuple[list[str], list[str | None]]:
        """For each inode the name of its type, and what is shown instead of a path: None for one.

        Both are those of a file with a path if it cannot be read.
        """
        inodes, modes, numbers, blocks = self._columns(
            filter(None, dict.fromkeys(addresses)), _INODE_MEMBERS, None
        )
        systems = self._file_systems(dict.fromkeys(blocks))
        kinds = {}
        labels = {}
        for at, mode, number, block in zip(inodes, modes, numbers, blocks, strict=True):
            kinds[at] = _TYPES.get(mode & _TYPE_BITS, "")
            label = _WITHOUT_PATH.get(systems.get(block, ""))
            if label is not None:
                labels[at] = label if label == _ANONYMOUS else f"{label}:[{number}]"
        return list(map(kinds.get, addresses, repeat(""))), list(map(labels.get, addresses))

    def _file_systems(self, blocks: Iterable[int]) -> dict[int, str]:
        """The name of the file system of each super block whose name can be read."""
        kernel = self._kernel
        names = kernel.file_systems
        new = [block for block in blocks if block and block not in names]
        if new:
            blocks, kinds = self._columns(new, [_FILE_SYSTEM], None)
            known: dict[int, str] = {}
            for kind in set(kinds):
                with suppress(AbsentError):
                    known[kind] = kernel.string(kernel.read(kind, "file_system_type.name"), 64)
            for block, kind in zip(blocks, kinds, strict=True):
                if kind in known:
                    names[block] = known[kind]
        return names
