"""Open files of processes."""

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from .._native import AbsentError, MemoryFault
from ..isolation import isolated
from ..limits import MAX_OPEN_FILES
from .kernel import Kernel
from .paths import Path, Paths
from .structs import Structs, batches
from .tasks import Task

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


class _Place(NamedTuple):
    """A struct file that was read."""

    path: Path
    inode: int


def open_files(kernel: Kernel, tasks: Sequence[Task]) -> dict[int, OpenFiles]:
    """The open files of each task, by its address; of those that have exited none.

    What cannot be read is left out with a warning. Raises AbsentError if the types are not known.
    """
    return _Reader(kernel).read(tasks)


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._paths = Paths(kernel)
        self._dentry = kernel.numeric("file.f_path.dentry")
        self._mount = kernel.numeric("file.f_path.mnt")
        self._inode = kernel.numeric("file.f_inode")

    def read(self, tasks: Sequence[Task]) -> dict[int, OpenFiles]:
        kernel = self._kernel
        names = ["task_struct.files", "task_struct.fs"]
        structs = Structs(kernel, [task.address for task in tasks], names)
        tables: dict[int, int] = {}
        places: dict[int, int] = {}
        for task in tasks:
            with isolated(f"the open files of task {task.pid} cannot be read", kernel.warn):
                places[task.address] = structs.read(task.address, "task_struct.fs")
                tables[task.address] = structs.read(task.address, "task_struct.files")
        descriptors = self._descriptors(table for table in dict.fromkeys(tables.values()) if table)
        every = (at for numbers in descriptors.values() for _, at in numbers)
        files = self._files(dict.fromkeys(every))
        homes = self._homes(at for at in dict.fromkeys(places.values()) if at)
        self._paths.load(
            [
                *(file.path for file in files.values()),
                *(path for home in homes.values() for path in home),
            ]
        )
        modes = self._modes(file.inode for file in files.values())
        systems = dict(self._file_systems(block for _, _, block in modes.values()))
        shown = {at: self._shown(at, file, modes, systems) for at, file in files.items()}
        found = {}
        for task in tasks:
            home = homes.get(places.get(task.address, 0))
            numbers = descriptors.get(tables.get(task.address, 0), ())
            found[task.address] = OpenFiles(
                None if home is None else self._paths.text(home[0]),
                None if home is None else self._paths.text(home[1]),
                [shown[at]._replace(number=number) for number, at in numbers if at in shown],
            )
        return found

    def _descriptors(self, tables: Iterable[int]) -> dict[int, list[tuple[int, int]]]:
        """The descriptors in use of each files_struct, with the struct file of each."""
        kernel = self._kernel
        found: dict[int, list[tuple[int, int]]] = {}
        budget = kernel.object_budget("descriptors", kernel.word, MAX_OPEN_FILES)
        for batch in batches(tables):
            structs = Structs(kernel, batch, ["files_struct.fdt"])
            for table in batch:
                what = f"the table of descriptors of files_struct {table:#x} cannot be read"
                with isolated(what, kernel.warn):
                    descriptors = structs.read(table, "files_struct.fdt")
                    count = kernel.read(descriptors, "fdtable.max_fds")
                    array = kernel.read(descriptors, "fdtable.fd")
                    budget.spend(count)
                    data = kernel.data(array, count * kernel.word)
                    pointers = np.frombuffer(data, f"<u{kernel.word}")
                    # The lowest bits are flags in some versions; a struct file is aligned to 8.
                    used = np.nonzero(pointers)[0].tolist()
                    found[table] = [(fd, int(pointers[fd]) & ~7) for fd in used]
        return found

    def _files(self, addresses: Iterable[int]) -> dict[int, _Place]:
        kernel = self._kernel
        found: dict[int, _Place] = {}
        for batch in batches(addresses):
            structs = Structs(kernel, batch, [self._dentry, self._mount, self._inode])
            for at in batch:
                with isolated(f"the file at {at:#x} cannot be read", kernel.warn):
                    path = Path(structs.read(at, self._mount), structs.read(at, self._dentry))
                    found[at] = _Place(path, structs.read(at, self._inode))
        return found

    def _homes(self, addresses: Iterable[int]) -> dict[int, tuple[Path, Path]]:
        """Root and working directory of each fs_struct."""
        kernel = self._kernel
        members = [
            kernel.numeric(f"fs_struct.{where}.{what}")
            for where in ("root", "pwd")
            for what in ("mnt", "dentry")
        ]
        found = {}
        for batch in batches(addresses):
            structs = Structs(kernel, batch, members)
            for at in batch:
                with isolated(f"the fs_struct at {at:#x} cannot be read", kernel.warn):
                    mount, dentry, own_mount, own = (structs.read(at, one) for one in members)
                    found[at] = (Path(mount, dentry), Path(own_mount, own))
        return found

    def _modes(self, inodes: Iterable[int]) -> dict[int, tuple[int, int, int]]:
        """Mode, number and super block of each inode."""
        kernel = self._kernel
        members = [kernel.numeric(f"inode.{name}") for name in ("i_mode", "i_ino", "i_sb")]
        found = {}
        for batch in batches(at for at in dict.fromkeys(inodes) if at):
            structs = Structs(kernel, batch, members)
            for at in batch:
                with suppress(MemoryFault):
                    mode, number, block = (structs.read(at, one) for one in members)
                    found[at] = (mode, number, block)
        return found

    def _file_systems(self, blocks: Iterable[int]) -> Iterator[tuple[int, str]]:
        """The name of the file system of each super block."""
        kernel = self._kernel
        for block in dict.fromkeys(blocks):
            with suppress(AbsentError):
                kind = kernel.read(block, "super_block.s_type")
                yield block, kernel.string(kernel.read(kind, "file_system_type.name"), 64)

    def _shown(
        self,
        address: int,
        file: _Place,
        modes: dict[int, tuple[int, int, int]],
        systems: dict[int, str],
    ) -> File:
        mode, number, block = modes.get(file.inode, (0, 0, 0))
        kind = _TYPES.get(stat.S_IFMT(mode), "")
        system = systems.get(block, "")
        if system in _WITHOUT_PATH:
            name = self._paths.name(file.path.dentry)
            prefix = _WITHOUT_PATH[system]
            path = f"{prefix}:{name}" if prefix == "anon_inode" else f"{prefix}:[{number}]"
        else:
            path = self._paths.text(file.path)
        return File(-1, address, file.path.dentry, file.inode, kind, path)
