"""A dump as a file: its container, its notes, and the kind of host that it is from."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice

from .. import api_arguments, export_note, parsing
from .._native import AddressSpace, DumpError, Image, Note
from .._native import Dump as NativeDump
from .._typing import TYPE_CHECKING, Literal, Self, TypedDict
from ..diagnostics import Warnings
from ..export_note import ExportNote
from ..limits import MAX_VMCOREINFO_NOTES
from ..linux.boot import vmcoreinfo
from ..xen import notes as xen_notes
from . import compression, formats
from .opened import Opened

if TYPE_CHECKING:
    from ..xen.detect import XenImage
    from ..xen.host import XenHost

#: The environment variable that limits the decompressed pages that are kept, in bytes.
CACHE_SIZE = "XKDUMP_CACHE_SIZE"


#: A path of a file.
StrPath = str | os.PathLike[str]


class OpenOptions(TypedDict):
    """The keyword arguments of ``open()``."""

    format: Literal["raw"] | None
    cache_size: int | None
    cache_dir: StrPath | None


def _cache_size() -> int | None:
    """``XKDUMP_CACHE_SIZE`` in bytes, None if it is not set. DumpError if it is no size."""
    text = os.environ.get(CACHE_SIZE)
    if not text:
        return None
    try:
        return parsing.size(text)
    except ValueError as error:
        raise DumpError(f"{CACHE_SIZE}: {error}") from None


class DumpFile:
    """The facts of a file that need no open domain."""

    def __init__(
        self,
        path: StrPath | Sequence[StrPath],
        *,
        format: Literal["raw"] | None = None,  # noqa: A002 - as in open()
        cache_size: int | None = None,
        cache_dir: StrPath | None = None,
    ) -> None:
        if isinstance(path, str | bytes | os.PathLike) or not isinstance(path, Iterable):
            path = [path]
        #: The files as they were given.
        self.paths: list[str] = [api_arguments.path("path", part) for part in path]
        if not self.paths:
            raise ValueError("path: at least one file is needed")
        #: Path of the file; of a split dump, that of the part that was given first.
        self.path: str = self.paths[0]
        #: How the files were opened: further arguments of ``open()``.
        self.options: OpenOptions = {
            "format": format,
            "cache_size": cache_size,
            "cache_dir": cache_dir,
        }
        if cache_dir is not None:
            cache_dir = api_arguments.path("cache_dir", cache_dir)
        if cache_size is not None:
            cache_size = api_arguments.integer("cache_size", cache_size)
            if not 0 <= cache_size < 1 << 63:
                raise ValueError(f"cache_size: {cache_size} is not a number of bytes")
        self._warnings = Warnings()
        self._hosts: Opened[tuple[str | None, bool], XenHost] = Opened()
        self._images: Opened[str, Image] = Opened()
        if cache_size is None:
            cache_size = _cache_size()
        files = self._unpacked(cache_dir)
        with formats.explained(files, "dump"):
            self.native = NativeDump(files, format=format, cache_size=cache_size)
        #: Every ELF note, in file order.
        self.notes: list[Note] = self.native.notes

    def _unpacked(self, cache_dir: str | None) -> list[str]:
        """The files, or what those of them were unpacked to that are compressed as a whole."""
        is_raw = self.options["format"] == "raw"
        files = []
        for path in self.paths:
            if compression.of_file(path) is not None:
                # Only imported if there is something to unpack.
                from . import unpacking

                directory = cache_dir or os.environ.get(unpacking.CACHE_DIR)
                found = unpacking.opened(path, directory, is_raw=is_raw)
                files.append(found.path)
                if found.warning is not None:
                    self.warn(found.warning)
            else:
                files.append(path)
        return files

    def close(self) -> None:
        """Closes the dump: later uses of it, or of anything made from it, raise ValueError.

        The file is unmapped with the last object made from the dump. Leaving a ``with`` block does
        the same.
        """
        self.native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        # No memory is read for this, so a host without notes of Xen's may not be known yet.
        is_host = self.__dict__.get("is_xen_host") or xen_notes.are_xens(self.notes)
        host = " of a Xen host" if is_host else ""
        return f"<{type(self).__name__} {self.path!r}: {self.native.format}{host}>"

    def warn(self, text: str) -> None:
        """Records, once, that something is missing or inconsistent."""
        self._warnings.add(text)

    @property
    def machine(self) -> AddressSpace:
        """Machine memory."""
        return self.native.machine

    @property
    def warnings(self) -> list[str]:
        """Faults of the file that leave it usable."""
        return [*self.native.warnings, *self._warnings.texts()]

    @cached_property
    def is_xen_host(self) -> bool:
        """Whether it is the dump of a Xen host."""
        return xen_notes.are_xens(self.notes) or self._xen_image is not None

    @cached_property
    def _xen_image(self) -> "XenImage | None":
        """Where Xen's image is, if no note is Xen's. Memory is searched for it."""
        if xen_notes.are_xens(self.notes) or self.is_exported_domain:
            return None
        if not xen_notes.may_lead_to_xen(self.notes):
            return None
        from ..xen import detect

        return detect.find(self.native)

    @cached_property
    def exported(self) -> ExportNote | None:
        """What the file was exported from; None if it was not."""
        return export_note.read(self.notes)

    @property
    def is_exported_domain(self) -> bool:
        """Whether it is a domain that was exported, and so a bare machine."""
        return self.exported is not None and self.exported.domain is not None

    @cached_property
    def is_dump_core(self) -> bool:
        """Whether it is an xl dump-core file."""
        return self.native.format.endswith("xl dump-core")

    @cached_property
    def is_domain_file(self) -> bool:
        """Whether it is a file of a single domain: of xl dump-core or xl save."""
        return self.native.domain_kind is not None

    def xen(
        self, xen_syms: str | os.PathLike[str] | None = None, *, force: bool = False
    ) -> "XenHost":
        """Opens the hypervisor of a Xen host's dump.

        ``xen_syms`` is its ELF file or its ``.map`` file; ``force`` accepts one of another build.
        It is opened once. Raises AbsentError if the dump is not a Xen host's, MismatchError if
        xen-syms is of another build.
        """
        path = None if xen_syms is None else api_arguments.path("xen_syms", xen_syms)
        return self._hosts.get((path, force), lambda: self._open_xen(path, force))

    def _open_xen(self, path: str | None, force: bool) -> "XenHost":
        from ..xen.host import XenHost, XenSymbols

        image = self._xen_image
        if path is None:
            return XenHost(self.native, None, force=force, image=image)
        with formats.explained(path, "xen-syms"):
            symbols = XenSymbols.open(path, lambda path: formats.open_xen(path, self.warn))
        return XenHost(self.native, symbols, force=force, image=image)

    def image(self, path: StrPath) -> Image:
        """Opens a kernel's image as ``formats.open_image``; one with its tables for all domains."""
        path = api_arguments.path("vmlinux", path)
        return self._images.get(path, lambda: formats.open_image(path, self.warn))

    @cached_property
    def hypervisor(self) -> "XenHost":
        """The hypervisor, without a xen-syms."""
        return self.xen()

    @cached_property
    def vmcoreinfos(self) -> list[Mapping[str, str]]:
        """The contents of every note VMCOREINFO, in file order."""
        notes = (note for note in self.notes if note.kind == "vmcoreinfo")
        texts = islice(notes, MAX_VMCOREINFO_NOTES)
        return [vmcoreinfo.parse(note.fields["text"]) for note in texts]

    @property
    def vmcoreinfo(self) -> Mapping[str, str]:
        """The contents of the first note VMCOREINFO; empty if there is none."""
        return next(iter(self.vmcoreinfos), {})
