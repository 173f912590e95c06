"""Paths of files: names of dentries up to the root, across mounts. Read in batches."""

from collections.abc import Iterable
from typing import NamedTuple

from ..limits import MAX_PATH_DEPTH
from .kernel import Kernel
from .structs import Structs, batches, follow

#: NAME_MAX.
_MAX_NAME = 255
UNKNOWN = "?"


class Path(NamedTuple):
    """A struct path: a place in the tree of mounts."""

    #: Address of the struct vfsmount.
    mount: int
    dentry: int


class _Mount(NamedTuple):
    #: The vfsmount that it is mounted on; its own at the top.
    parent: int
    #: Where, in that mount.
    mountpoint: int


class Paths:
    """Names of dentries and mounts of one kernel, each read once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        #: The parent and the name of each dentry; None if it cannot be read.
        self._dentries: dict[int, tuple[int, str] | None] = {}
        #: By the address of the vfsmount.
        self._mounts: dict[int, _Mount] = {}
        #: Addresses of each struct mount that was read, whether or not it could be.
        self._starts: set[int] = set()
        #: The root of each mount.
        self._roots: set[tuple[int, int]] = set()
        #: Of files, and of directories up to their last slash: many files are in few of them.
        self._texts: dict[tuple[int, int], str] = {}
        self._directories: dict[tuple[int, int], str] = {}
        self._budget = kernel.object_budget("dentries", kernel.types.sizeof("dentry"))
        # Since 3.3 (7d6fec45a5131) a vfsmount is a part of struct mount.
        self._inside = kernel.offset("mount.mnt")

    def load(self, paths: Iterable[tuple[int, int]]) -> None:
        """Reads what the texts of these paths need."""
        paths = set(paths)
        self._load_mounts({mount for mount, _ in paths})
        dentries = {dentry for _, dentry in paths}
        dentries.update(mount.mountpoint for mount in self._mounts.values())
        self._load_dentries(dentries)
        self._texts.clear()
        self._directories.clear()

    def _load_mounts(self, addresses: Iterable[int]) -> None:
        kernel, inside = self._kernel, self._inside
        members = ("mount.mnt_parent", "mount.mnt_mountpoint", "vfsmount.mnt_root")
        parent, point, root = map(kernel.numeric, members)
        root = root._replace(offset=root.offset + inside)
        starts = [kernel.containing(at, inside) for at in addresses if at]
        for batch in batches(follow(kernel, starts, parent, self._starts, self._budget)):
            self._starts.update(batch)
            rows, _ = Structs(kernel, batch, [parent, point, root]).table(parent, point, root)
            for start, (up, mountpoint, top) in rows.items():
                mount = start + inside & kernel.last
                self._mounts[mount] = _Mount(up + inside & kernel.last, mountpoint)
                self._roots.add((mount, top))

    def _load_dentries(self, addresses: Iterable[int]) -> None:
        kernel, last = self._kernel, self._kernel.last
        names = ("d_parent", "d_name.name", "d_name.len")
        parent, name, length = (kernel.numeric(f"dentry.{member}") for member in names)
        starts = [at for at in addresses if at]
        for batch in batches(follow(kernel, starts, parent, self._dentries, self._budget)):
            self._dentries.update(dict.fromkeys(batch))
            members = [parent, name, length]
            rows, _ = Structs(kernel, batch, members).table(*members)
            sizes = [size if size < _MAX_NAME else _MAX_NAME for _, _, size in rows.values()]
            kernel.charge(sum(sizes))
            texts = kernel.virtual.read_each([at & last for _, at, _ in rows.values()], sizes)
            self._dentries.update(
                (at, (up, UNKNOWN if text is None else text.decode("utf-8", "backslashreplace")))
                for (at, (up, _, _)), text in zip(rows.items(), texts, strict=True)
            )

    def name(self, dentry: int) -> str:
        """The name of a dentry."""
        found = self._dentries.get(dentry)
        return UNKNOWN if found is None else found[1]

    def _mounted_on(self, mount: int) -> Path | None:
        """Where a mount is; None at the top, or if it is not known."""
        found = self._mounts.get(mount)
        if found is None or found.parent == mount:
            return None
        return Path(found.parent, found.mountpoint)

    def text(self, path: tuple[int, int]) -> str:
        """The path from the root of all mounts. A part that cannot be read is ``?``."""
        text = self._texts.get(path)
        if text is None:
            mount, dentry = path
            parent, name = self._dentries.get(dentry) or (dentry, UNKNOWN)
            if dentry == parent or path in self._roots:
                text = self._text(mount, dentry)
            else:
                place = mount, parent
                directory = self._directories.get(place)
                if directory is None:
                    above = self._text(mount, parent)
                    directory = self._directories[place] = above if above == "/" else f"{above}/"
                text = directory + name
            self._texts[path] = text
        return text

    def _text(self, mount: int, dentry: int) -> str:
        names: list[str] = []
        for _ in range(MAX_PATH_DEPTH):
            found = self._dentries.get(dentry)
            if found is None:
                names.append(UNKNOWN)
                break
            parent, name = found
            # The root of a mount, or of a file system.
            if dentry == parent or (mount, dentry) in self._roots:
                above = self._mounted_on(mount)
                if above is None:
                    break
                mount, dentry = above
                continue
            names.append(name)
            dentry = parent
        return "/" + "/".join(reversed(names))
