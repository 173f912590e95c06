"""A dump as a session opens it: ``open()`` gives a ``Dump``, ``Dump.domain()`` a ``Domain``."""

import os
from collections.abc import Sequence

from ..linux.boot.claims import Given
from .domain import Domain
from .dump_file import DumpFile
from .formats import open_image
from .platform import platform_of


def open(path: str | os.PathLike[str]) -> "Dump":  # noqa: A001 - as gzip.open
    """Opens the dump at ``path``, read-only.

    Raises OSError if the file cannot be opened, DumpError if it is not a dump.
    """
    return Dump(path)


class Dump(DumpFile):
    """A dump: its notes, its machine memory, and the domains in it."""

    def domain(
        self,
        number: int = 0,
        vmlinux: str | os.PathLike[str] | None = None,
        *,
        p2m_source: str | None = None,
        force: bool = False,
        unwind: Sequence[str] | None = None,
        kaslr_offset: int | None = None,
        phys_base: int | None = None,
        vmcoreinfo: str | os.PathLike[str] | None = None,
    ) -> "Domain":
        """Opens a domain and, with its ``vmlinux``, its kernel.

        A bare machine and an xl dump-core file have domain 0 only. ``p2m_source`` forces ``list``,
        ``linear`` or ``cr3``. ``unwind`` limits the unwinder to some of ``orc``, ``cfi``, ``fp``
        and ``scan``. ``kaslr_offset``, ``phys_base`` and ``vmcoreinfo``, a file with the text, say
        where the kernel is; they are tried before the dump's notes, and rejected with a warning if
        the kernel is elsewhere. ``force`` accepts a vmlinux of another build, and uses what cannot
        be verified.

        Raises AbsentError if the dump does not hold the domain or its kernel, MismatchError if the
        vmlinux is of another build, DumpError or OSError if it or ``vmcoreinfo`` cannot be used,
        ValueError if ``kaslr_offset`` or ``phys_base`` is out of range.
        """
        given = Given.of(kaslr_offset, phys_base, vmcoreinfo)
        platform = platform_of(self, number)
        image = None if vmlinux is None else open_image(os.fspath(vmlinux))
        return Domain(number, platform, image, p2m_source, force, unwind, given)
