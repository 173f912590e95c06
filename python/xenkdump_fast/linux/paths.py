"""Paths of files: names of dentries up to the root, across mounts. Read in batches."""

from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from .._native import MemoryFault
from ..limits import MAX_PATH_DEPTH
from .kernel import Kernel
from .structs import Structs, batches

#: Bytes of a name that are read in a batch; longer ones are read on their own.
_NAME = 64
#: NAME_MAX.
_MAX_NAME = 255
UNKNOWN = "?"


class Path(NamedTuple):
    """A struct path: a place in the tree of mounts."""

    #: Address of the struct vfsmount.
    mount: int
    dentry: int


class _Dentry(NamedTuple):
    parent: int
    inode: int
    name: str


class _Mount(NamedTuple):
    #: Address of the struct mount.
    address: int
    #: The vfsmount that it is mounted on; its own at the top.
    parent: int
    #: Where, in that mount.
    mountpoint: int
    root: int


class Paths:
    """Names of dentries and mounts of one kernel, each read once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._dentries: dict[int, _Dentry | None] = {}
        self._mounts: dict[int, _Mount | None] = {}
        self._budget = kernel.object_budget("dentries", kernel.types.sizeof("dentry"))
        # Since 3.3 (7d6fec45a5131) a vfsmount is a part of struct mount.
        self._inside = kernel.offset("mount.mnt")

    def load(self, paths: Iterable[Path]) -> None:
        """Reads what the texts of these paths need."""
        paths = list(paths)
        self._load_mounts(path.mount for path in paths)
        mounts = [mount for mount in self._mounts.values() if mount is not None]
        points = [mount.mountpoint for mount in mounts]
        self._load_dentries([*(path.dentry for path in paths), *points])

    def _load_mounts(self, addresses: Iterable[int]) -> None:
        kernel = self._kernel
        members = ("mount.mnt_parent", "mount.mnt_mountpoint", "vfsmount.mnt_root")
        places = [kernel.numeric(name) for name in members]
        parent, point, root = places
        root = root._replace(offset=root.offset + self._inside)
        waiting = [at for at in dict.fromkeys(addresses) if at and at not in self._mounts]
        for _ in range(MAX_PATH_DEPTH):
            if not waiting:
                return
            above: list[int] = []
            for batch in batches(self._budget.take(waiting)):
                starts = {at: kernel.containing(at, self._inside) for at in batch}
                structs = Structs(kernel, starts.values(), [parent, point, root])
                for at, start in starts.items():
                    self._mounts[at] = None
                    with suppress(MemoryFault):
                        up = structs.read(start, parent) + self._inside & kernel.last
                        found = _Mount(
                            start, up, structs.read(start, point), structs.read(start, root)
                        )
                        self._mounts[at] = found
                        above.append(up)
            waiting = [at for at in dict.fromkeys(above) if at not in self._mounts]

    def _load_dentries(self, addresses: Iterable[int]) -> None:
        kernel = self._kernel
        parent = kernel.numeric("dentry.d_parent")
        inode = kernel.numeric("dentry.d_inode")
        name = kernel.numeric("dentry.d_name.name")
        length = kernel.numeric("dentry.d_name.len")
        waiting = [at for at in dict.fromkeys(addresses) if at and at not in self._dentries]
        for _ in range(MAX_PATH_DEPTH):
            if not waiting:
                return
            above: list[int] = []
            for batch in batches(self._budget.take(waiting)):
                structs = Structs(kernel, batch, [parent, inode, name, length])
                read: list[tuple[int, int, int, int, int]] = []
                for at in batch:
                    self._dentries[at] = None
                    with suppress(MemoryFault):
                        members = (structs.read(at, one) for one in (parent, inode, name, length))
                        up, node, text, size = members
                        read.append((at, up, node, text, size))
                names = self._names([(one[3], one[4]) for one in read])
                for (at, up, node, _, _), shown in zip(read, names, strict=True):
                    self._dentries[at] = _Dentry(up, node, shown)
                    above.append(up)
            waiting = [at for at in dict.fromkeys(above) if at and at not in self._dentries]

    def _names(self, places: list[tuple[int, int]]) -> list[str]:
        """The names at some addresses with their lengths."""
        if not places:
            return []
        kernel = self._kernel
        addresses = np.array([at & kernel.last for at, _ in places], dtype=np.uint64)
        status = np.zeros(len(places), np.uint8)
        rows = kernel.virtual.read_many(addresses, _NAME, status=status)
        found = []
        for (at, size), row, problem in zip(places, rows, status.tolist(), strict=True):
            try:
                if problem or size > _NAME:
                    data = kernel.data(at, min(size, _MAX_NAME))
                else:
                    data = row[:size].tobytes()
                found.append(data.decode("utf-8", "backslashreplace"))
            except MemoryFault:
                found.append(UNKNOWN)
        return found

    def inode(self, dentry: int) -> int:
        """The inode of a dentry; 0 if it has none or cannot be read."""
        found = self._dentries.get(dentry)
        return 0 if found is None else found.inode

    def name(self, dentry: int) -> str:
        """The name of a dentry."""
        found = self._dentries.get(dentry)
        return UNKNOWN if found is None else found.name

    def root(self, mount: int) -> int:
        """The dentry at the root of a mount; 0 if it is not known."""
        found = self._mounts.get(mount)
        return 0 if found is None else found.root

    def mounted_on(self, mount: int) -> Path | None:
        """Where a mount is; None at the top, or if it is not known."""
        found = self._mounts.get(mount)
        if found is None or found.parent == mount:
            return None
        return Path(found.parent, found.mountpoint)

    def text(self, path: Path) -> str:
        """The path from the root of all mounts. A part that cannot be read is ``?``."""
        names: list[str] = []
        mount, dentry = path
        for _ in range(MAX_PATH_DEPTH):
            found = self._dentries.get(dentry)
            if found is None:
                names.append(UNKNOWN)
                break
            if dentry == self.root(mount) or found.parent == dentry:
                above = self.mounted_on(mount)
                if above is None:
                    break
                mount, dentry = above
                continue
            names.append(found.name)
            dentry = found.parent
        return "/" + "/".join(reversed(names))
