"""Open files of processes."""

import stat
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import chain, islice, repeat
from operator import concat
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


class _Descriptors(NamedTuple):
    """The descriptors in use, grouped by files_struct."""

    #: How many of them each files_struct has, by its address.
    counts: dict[int, int]
    numbers: list[int]
    #: Addresses of the struct files.
    files: list[int]

    def among(self, known: Container[int]) -> "_Descriptors":
        """Those whose struct file is known."""
        found = _Descriptors({}, [], [])
        every = zip(self.numbers, self.files, strict=True)
        for table, count in self.counts.items():
            kept = [pair for pair in islice(every, count) if pair[1] in known]
            found.counts[table] = len(kept)
            found.numbers.extend(number for number, _ in kept)
            found.files.extend(at for _, at in kept)
        return found

    def opened(self, known: Mapping[int, tuple[int, int, int, str, str]]) -> dict[int, list[File]]:
        """The open files of each files_struct, by what is known of each struct file."""
        rows = map(concat, zip(self.numbers), map(known.__getitem__, self.files))
        # A tuple's own constructor: that of a NamedTuple is a function in Python.
        files = map(tuple.__new__, repeat(File), rows)
        return {table: list(islice(files, count)) for table, count in self.counts.items()}


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._paths = Paths(kernel)

    def read(self, tasks: Sequence[Task]) -> dict[int, OpenFiles]:
        # Most loops are within map() and zip(): no code in Python runs for each open file.
        addresses, owners, tables = self._of_tasks(tasks)
        # Threads share them, and kernel threads those of init.
        descriptors = self._descriptors(filter(None, dict.fromkeys(tables)))
        every = dict.fromkeys(descriptors.files)
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
        known = dict(zip(files, columns, strict=True))
        if len(known) < len(every):
            descriptors = descriptors.among(known)
        opened = descriptors.opened(known)
        first = len(named)
        of_root = dict(zip(homes, texts[first::2], strict=True))
        of_directory = dict(zip(homes, texts[first + 1 :: 2], strict=True))
        none: list[File] = []
        rows = zip(
            map(of_root.get, owners),
            map(of_directory.get, owners),
            map(opened.get, tables, repeat(none)),
            strict=True,
        )
        return dict(zip(addresses, map(tuple.__new__, repeat(OpenFiles), rows), strict=True))

    def _columns(
        self, addresses: Iterable[int], members: tuple[str, ...], what: Callable[[int], str]
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

    def _arrays(self, tables: list[int]) -> list[list[int]]:
        """Those files_structs whose fdtable can be read, the size and the address of each array."""
        kernel = self._kernel
        arrays: dict[int, tuple[int, int]] = {}
        elsewhere = {}
        try:
            inside = kernel.offset("files_struct.fdtab")
            columns, problems = read_columns(kernel, tables, _TABLE_MEMBERS)
        except AbsentError:
            problems = dict.fromkeys(tables, AbsentError())
        if problems:
            tables, fdts = self._columns(tables, ("files_struct.fdt",), _table)
            elsewhere = dict(zip(fdts, tables, strict=True))
        else:
            # A process with few files has the fdtable within its files_struct.
            tables, fdts, sizes, starts = columns
            own = [table + inside for table in tables]
            if fdts == own:
                return [tables, sizes, starts]
            arrays = dict(zip(own, zip(sizes, starts, strict=True), strict=True))
            elsewhere = {
                fdt: table for fdt, table in zip(fdts, tables, strict=True) if fdt not in arrays
            }
        if elsewhere:
            columns = self._columns(
                filter(None, elsewhere), _FDTABLE_MEMBERS, lambda at: _table(elsewhere[at])
            )
            rows = zip(*columns[1:], strict=True)
            arrays.update(zip(columns[0], rows, strict=True))
        read = [pair for pair in zip(tables, fdts, strict=True) if pair[1] in arrays]
        found = [arrays[fdt] for _, fdt in read]
        return [
            [table for table, _ in read],
            [size for size, _ in found],
            [start for _, start in found],
        ]

    def _descriptors(self, tables: Iterable[int]) -> _Descriptors:
        """The descriptors of these files_structs."""
        kernel = self._kernel
        found = _Descriptors({}, [], [])
        budget = kernel.object_budget("descriptors", kernel.word, MAX_OPEN_FILES)
        for batch in batches(tables):
            owners, sizes, places = self._arrays(batch)
            sizes = self._charged(owners, [size & 0xFFFF_FFFF for size in sizes], budget)
            # The lowest bits are flags in some versions; a struct file is aligned to 8.
            counts, numbers, files = kernel.virtual.pointers(places, sizes, kernel.word, flags=7)
            found.numbers.extend(numbers)
            found.files.extend(files)
            for table, array, size, count in zip(owners, places, sizes, counts, strict=True):
                if count is None:
                    with isolated(f"{_table(table)} cannot be read", kernel.warn):
                        kernel.data(array, size * kernel.word)
                else:
                    found.counts[table] = count
        return found

    def _charged(self, tables: Sequence[int], counts: list[int], budget: Budget) -> list[int]:
        """The number of descriptors to read of each table, which has ``counts`` of them."""
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

        Both are those of a file with a path if it cannot be read, with a warning.
        """
        inodes, modes, numbers, blocks = self._columns(
            filter(None, dict.fromkeys(addresses)),
            _INODE_MEMBERS,
            lambda at: f"the inode at {at:#x}",
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
            blocks, kinds = self._columns(
                new, (_FILE_SYSTEM,), lambda at: f"the super block at {at:#x}"
            )
            known: dict[int, str] = {}
            for kind in dict.fromkeys(kinds):
                what = f"the name of the file_system_type at {kind:#x} cannot be read"
                with isolated(what, kernel.warn):
                    known[kind] = kernel.string(kernel.read(kind, "file_system_type.name"), 64)
            for block, kind in zip(blocks, kinds, strict=True):
                if kind in known:
                    names[block] = known[kind]
        return names
