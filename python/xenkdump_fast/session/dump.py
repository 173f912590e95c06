"""A dump as a session opens it: ``open()`` gives a ``Dump``, ``Dump.domain()`` a ``Domain``."""

import os
from collections.abc import Sequence

from .._native import Image
from .domain import Domain
from .dump_file import DumpFile
from .platform import platform_of


def open(path: str | os.PathLike[str]) -> "Dump":  # noqa: A001 - as gzip.open
    """Opens the dump at ``path`` read-only; OSError or DumpError if that cannot be done."""
    return Dump(path)


class Dump(DumpFile):
    """A dump: its notes, its machine memory, the domains in it."""

    def domain(
        self,
        number: int = 0,
        vmlinux: str | os.PathLike[str] | None = None,
        *,
        p2m_source: str | None = None,
        force: bool = False,
        unwind: Sequence[str] | None = None,
    ) -> "Domain":
        """A domain and, with its ``vmlinux``, its kernel.

        On a machine without Xen, and in a file of xl dump-core, there is but domain 0.
        ``p2m_source`` forces one of ``p2m_sources.NAMES``; ``force`` accepts a vmlinux of another
        build; ``unwind`` limits the methods of the unwinder.

        Raises AbsentError where the dump does not hold it, MismatchError for a vmlinux of another
        build, DumpError or OSError for a vmlinux that cannot be used.
        """
        platform = platform_of(self, number)
        image = None if vmlinux is None else Image(vmlinux)
        return Domain(number, platform, image, p2m_source, force, unwind)
