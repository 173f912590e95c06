"""A dump as a session opens it: ``open()`` gives a ``Dump``, ``Dump.domain()`` a ``Domain``."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property, partial

from .. import api_arguments
from .._typing import TYPE_CHECKING, Literal
from .dump_file import DumpFile, StrPath

if TYPE_CHECKING:
    from .domain import Domain


def open(  # noqa: A001 - as gzip.open
    path: StrPath | Sequence[StrPath],
    *,
    format: Literal["raw"] | None = None,  # noqa: A002 - as shutil.unpack_archive
    cache_size: int | None = None,
    cache_dir: StrPath | None = None,
) -> "Dump":
    """Opens the dump at ``path``, read-only; or the parts of a split dump, in any order.

    The other parts of a single one are looked for in its directory. ``format="raw"`` takes the file
    for a raw image of physical memory, which nothing in it says. ``cache_size`` limits the bytes of
    decompressed pages that are kept; the default is ``XKDUMP_CACHE_SIZE``, else 64 MiB. A file that
    is compressed as a whole (gzip, bzip2, xz, zstd) is unpacked into the directory ``cache_dir``,
    once; the default is ``XKDUMP_CACHE_DIR``. A zstd file with a seek table is read in place.

    Raises OSError if the file cannot be opened, DumpError if it is not a dump, TypeError or
    ValueError for wrong arguments.
    """
    return Dump(path, format=format, cache_size=cache_size, cache_dir=cache_dir)


class Dump(DumpFile):
    """A dump: its notes, its machine memory, and the domains in it.

    It is a context manager, which closes it. A pickled dump is the arguments of ``open()``:
    unpickling opens the file again, without the warnings and the objects that were made from the
    dump before.
    """

    def __reduce__(self) -> tuple[Callable[[list[str]], "Dump"], tuple[list[str]]]:
        return partial(type(self), **self.options), (self.paths,)

    @cached_property
    def domain_ids(self) -> list[int]:
        """The ids of its domains, without Xen's own; only 0 if it is not of a Xen host."""
        from .domain_id import domain_ids

        return domain_ids(self)

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

        ``number`` is its id, also as a string, or a name: its UUID, or its kernel's node name (the
        dump of a host does not hold the toolstack's names, except that dom0's is always
        ``Domain-0``). A bare machine and the file of a single domain have domain 0 only.
        ``p2m_source`` forces ``list``, ``linear`` or ``cr3``. ``unwind`` limits the unwinder to
        some of ``orc``, ``cfi``, ``fp`` and ``scan``. ``kaslr_offset``, ``phys_base`` and
        ``vmcoreinfo``, a file with the text, say where the kernel is; they are tried before the
        dump's notes, and rejected with a warning if the kernel is elsewhere. ``force`` accepts a
        vmlinux of another build, and uses what cannot be verified.

        Raises AbsentError if the dump does not hold the domain or its kernel, MismatchError if the
        vmlinux is of another build, DumpError or OSError if it or ``vmcoreinfo`` cannot be used,
        ValueError if ``kaslr_offset`` or ``phys_base`` is out of range, TypeError for an argument
        of another type.
        """
        # Not needed by commands about Xen alone.
        from ..linux.boot.claims import Given
        from .domain import Domain, Options
        from .domain_id import domain_id
        from .platform import platform_of

        path = None if vmcoreinfo is None else api_arguments.path("vmcoreinfo", vmcoreinfo)
        given = Given.of(kaslr_offset, phys_base, path)
        if p2m_source is not None:
            api_arguments.text("p2m_source", p2m_source)
        methods = None if unwind is None else api_arguments.texts("unwind", unwind)
        number = domain_id(self, number)
        platform = platform_of(self, number)
        image = None if vmlinux is None else self.image(vmlinux)
        options = Options(p2m_source, force, methods, kaslr_offset, phys_base, path)
        return Domain(number, platform, image, options, given)
