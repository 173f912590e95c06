"""Paths of files: names of dentries up to the root, across mounts. Read in batches."""

from collections.abc import Sequence

from .._native import AbsentError
from ..limits import MAX_PATH_DEPTH, MAX_PATH_STEPS, MAX_PATHS_SIZE
from .kernel import Kernel

UNKNOWN = "?"
#: The number of paths that are read together.
_BATCH = 8192


class Paths:
    """Reads paths of one kernel; their number and size are limited together."""

    def __init__(self, kernel: Kernel) -> None:
        """AbsentError if the layout is not known."""
        self._kernel = kernel
        self._budget = kernel.object_budget("dentries", kernel.types.sizeof("dentry"))
        self._size = MAX_PATHS_SIZE
        self._steps = MAX_PATH_STEPS
        members = ("d_parent", "d_name.name", "d_name.len")
        parent, name, length = (kernel.numeric(f"dentry.{member}") for member in members)
        self._dentry = parent.offset, name.offset, length.offset, length.size
        # Since 3.3 (7d6fec45a5131) a vfsmount is a part of struct mount.
        self._inside = kernel.offset("mount.mnt")
        up, point = kernel.offset("mount.mnt_parent"), kernel.offset("mount.mnt_mountpoint")
        root = self._inside + kernel.offset("vfsmount.mnt_root")
        self._mount = self._inside, up, point, root

    def texts(self, mounts: Sequence[int | None], dentries: Sequence[int]) -> list[str]:
        """The path of each dentry from the root of all mounts, by the vfsmount that it is in.

        Without a mount it is the name of the dentry. A part that cannot be read is ``?``, with a
        warning.
        """
        if len(dentries) <= _BATCH:
            return self._texts(mounts, dentries)
        found: list[str] = []
        for first in range(0, len(dentries), _BATCH):
            last = first + _BATCH
            found += self._texts(mounts[first:last], dentries[first:last])
        return found

    def _texts(self, mounts: Sequence[int | None], dentries: Sequence[int]) -> list[str]:
        kernel, budget = self._kernel, self._budget
        limits = MAX_PATH_DEPTH, budget.remaining, self._size, self._steps
        found, lost, structs, size, steps = kernel.virtual.paths(
            dentries, mounts, kernel.word, self._dentry, self._mount, limits
        )
        budget.spend(structs)
        self._size -= min(size, self._size)
        self._steps -= steps
        kernel.charge(size + structs * kernel.word)
        # Many paths may lack the same part.
        for what, at in dict.fromkeys(lost):
            kernel.warn(f"a path is not complete: {self._reason(what, at)}")
        return found

    def _reason(self, what: str, at: int) -> str:
        if what == "depth":
            return f"there are more than {MAX_PATH_DEPTH} dentries and mounts above each other"
        if what == "structs":
            return self._budget.reason
        if what == "size":
            return f"all paths together have more than {MAX_PATHS_SIZE} bytes"
        if what == "steps":
            return f"all paths together lead through more than {MAX_PATH_STEPS} dentries and mounts"
        kernel = self._kernel
        name, start, offsets = {
            "node": ("dentry", at, self._dentry[:3]),
            "tree": ("mount", kernel.containing(at, self._inside), self._mount[1:]),
            "name": ("name of a dentry", at, (0,)),
        }[what]
        size = 1 if what == "name" else kernel.word
        try:
            for offset in offsets:
                kernel.number(start + offset, size)
        except AbsentError as error:
            return f"the {name} at {start:#x} cannot be read: {error}"
        # The name is there: its length is the reason.
        return f"the {name} at {start:#x} cannot be read: the dentry is damaged"
