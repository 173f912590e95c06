"""A dump as a session opens it: ``open()`` gives a ``Dump``, ``Dump.domain()`` a ``Domain``."""

import os
from collections.abc import Callable, Sequence

from ..linux.boot.claims import Given
from .domain import Domain, Options
from .domain_id import domain_id
from .dump_file import DumpFile
from .formats import open_image
from .platform import platform_of


def open(path: str | os.PathLike[str]) -> "Dump":  # noqa: A001 - as gzip.open
    """Opens the dump at ``path``, read-only.

    Raises OSError if the file cannot be opened, DumpError if it is not a dump.
    """
    return Dump(path)


class Dump(DumpFile):
    """A dump: its notes, its machine memory, and the domains in it.

    It is a context manager, which closes it. A pickled dump is the path as given: unpickling opens
    the file again, without the warnings and the objects that were made from the dump before.
    """

    def __reduce__(self) -> tuple[Callable[[str], "Dump"], tuple[str]]:
        return type(self), (self.path,)

    def domain(
        self,
        number: int | str = 0,
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

        ``number`` is its id, also as a string, or a name: its UUID, or its kernel's node name (a
        dump does not hold the toolstack's names, except that dom0's is always ``Domain-0``). A bare
        machine and an xl dump-core file have domain 0 only. ``p2m_source`` forces ``list``,
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
        number = domain_id(self, number)
        platform = platform_of(self, number)
        image = None if vmlinux is None else open_image(os.fspath(vmlinux))
        methods = None if unwind is None else tuple(unwind)
        path = None if vmcoreinfo is None else os.fspath(vmcoreinfo)
        options = Options(p2m_source, force, methods, kaslr_offset, phys_base, path)
        return Domain(number, platform, image, options, given)
