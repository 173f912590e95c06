"""Identifies files given in place of a dump, a vmlinux or a xen-syms, and suggests what to do.

Consulted to tell the operands apart, and after a file failed to open.
"""

import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from types import TracebackType

from .._native import DumpError, Image, head
from .._typing import Literal, NamedTuple
from ..limits import MAX_LISTED_FILES
from ..regular_files import open_regular

#: What a file was given as.
Wanted = Literal["dump", "vmlinux", "xen-syms"]


class Format(NamedTuple):
    """A format by its magic number."""

    magic: bytes
    offset: int
    name: str
    #: What such a file holds. A compressed file may hold either.
    holds: Literal["dump", "kernel", "compressed"]
    #: What to do with it.
    remedy: str


_VMLINUX = "give the vmlinux or vmlinuz of the kernel"
_XEN_SYMS = "give the xen-syms of the build tree or of the debug package"

_FORMATS = (
    Format(b"KDUMP   ", 0, "a kdump-compressed dump", "dump", ""),
    Format(b"DISKDUMP", 0, "a diskdump-compressed dump", "dump", ""),
    Format(b"makedumpfile\0", 0, "a flattened dump (makedumpfile -F)", "dump", ""),
    Format(b"EMiL", 0, "a LiME image", "dump", ""),
    # DUMP_MAGIC_NUMBER of lkcd's dump.h, least significant byte first.
    Format(
        b"\xed\x23\x8f\x61\x73\x01\x19\xa8",
        0,
        "an LKCD dump",
        "dump",
        "only crash and libkdumpfile read it",
    ),
    # SADUMP_SIGNATURE1 and 2 of makedumpfile's sadump_mod.h: a dump on a single device.
    Format(
        b"sadump\0\0",
        0,
        "an SADUMP dump",
        "dump",
        "convert it with makedumpfile -l -d 0 -x VMLINUX FILE NEW",
    ),
    Format(
        b"QEVM",
        0,
        "a QEMU save file",
        "dump",
        "restore it, then use dump-guest-memory in QEMU's monitor",
    ),
    Format(
        b"LibvirtQemudSave",
        0,
        "a libvirt save file",
        "dump",
        "use virsh restore --paused, then virsh dump --memory-only",
    ),
    Format(b"Xen saved domain", 0, "an xl save file", "dump", ""),
    Format(b"libvirt-xml\n \0 \r", 0, "a libvirt save file of libxl", "dump", ""),
    Format(b"LibxlFmt", 0, "a libxl save file", "dump", ""),
    Format(b"\xff" * 8 + b"XENF", 0, "a libxc save file", "dump", ""),
    Format(b"LinuxGuestRecord", 0, "an xm save file", "dump", ""),
    # Also what QEMU's dump-guest-memory -w writes.
    Format(
        b"PAGEDU",
        0,
        "a Windows crash dump (win-dmp)",
        "dump",
        "only Linux and Xen are supported; use QEMU's dump-guest-memory without -w",
    ),
    Format(b"\x1f\x8b", 0, "compressed by gzip", "compressed", "decompress it with gunzip"),
    Format(b"\xfd7zXZ\0", 0, "compressed by xz", "compressed", "decompress it with unxz"),
    Format(b"\x28\xb5\x2f\xfd", 0, "compressed by zstd", "compressed", "decompress it with unzstd"),
    Format(b"BZh", 0, "compressed by bzip2", "compressed", "decompress it with bunzip2"),
    Format(b"\x04\x22\x4d\x18", 0, "compressed by lz4", "compressed", "decompress it with unlz4"),
    Format(
        b"\x02\x21\x4c\x18", 0, "compressed by lz4 -l", "compressed", "decompress it with unlz4"
    ),
    Format(b"\x89LZO\0", 0, "compressed by lzo", "compressed", "decompress it with lzop -d"),
    Format(b"\x5d\0\0", 0, "compressed by lzma", "compressed", "decompress it with unlzma"),
    # Documentation/arch/x86/boot.rst: the magic number of the setup header.
    Format(b"HdrS", 0x202, "a compressed kernel (vmlinuz or bzImage)", "kernel", ""),
    Format(b"MZ", 0, "an EFI executable, such as xen.efi", "kernel", _VMLINUX),
)
#: By e_type.
_ELF = {
    1: Format(b"\x7fELF", 0, "an ELF object file, such as a module", "kernel", _VMLINUX),
    2: Format(b"\x7fELF", 0, "an ELF executable, such as a vmlinux", "kernel", ""),
    3: Format(b"\x7fELF", 0, "an ELF executable, such as a vmlinux", "kernel", ""),
    4: Format(b"\x7fELF", 0, "an ELF core file, such as a vmcore", "dump", ""),
}
_PROGRAM = Format(b"\x7fELF", 0, "a program of user space", "kernel", _VMLINUX)
_SYSTEM_MAP = Format(b"", 0, "a list of symbols, such as System.map", "kernel", "")
_SYMBOL_LINE = rb"[0-9a-f]{8,16} [A-Za-z?] \S[^\n]*\n"
#: Magic numbers of the multiboot header, which Xen has and Linux has not; bytes in which it may be.
_MULTIBOOT = (b"\x02\xb0\xad\x1b", b"\xd6\x50\x52\xe8")
_MULTIBOOT_SIZE = 0x9000
_BOOTED_XEN = "a Xen hypervisor as it is booted (xen.gz)"
#: Sections that describe types.
_TYPES = frozenset((".BTF", ".debug_info", ".zdebug_info"))
#: A part of the error for a file of no known format, and what to do.
_NO_MAGIC = "only read as such with --format raw"
_DUMPS = (
    "give an ELF vmcore, a kdump-compressed dump, a LiME image, or a file of xl dump-core or "
    "xl save; --format raw takes a file for plain memory"
)
#: The same for an image that is not compressed.
_NO_ELF = r": offset 0x0: expected an ELF file \([0-9a-f ]*\), found"
#: What to do, by what was wanted.
_WANTED: dict[Wanted, str] = {
    "dump": _DUMPS,
    "vmlinux": f"{_VMLINUX}; the order of the files is VMLINUX VMCORE",
    "xen-syms": f"{_XEN_SYMS}; the order of the files is XEN-SYMS VMCORE",
}
#: Bytes of such a file that are shown.
_SHOWN = 16
#: Bytes from the start of a file that are examined.
_HEAD = 0x400


class explained:  # noqa: N801 - used like a function
    """Opens files in the body; a DumpError then says what one of them is, if it is no such file."""

    __slots__ = ("_paths", "_wanted")

    def __init__(self, paths: str | Sequence[str], wanted: Wanted) -> None:
        self._paths = [paths] if isinstance(paths, str) else paths
        self._wanted = wanted

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, DumpError):
            return
        for path in self._paths:
            if os.path.isdir(path) and str(error).startswith(f"{path}: "):
                only = _only_dump(path) if self._wanted == "dump" else None
                if only is not None:
                    raise DumpError(f"{error}; the only dump in it is {only}") from None
                return
            text = describe(path, self._wanted)
            if text is None and (_NO_MAGIC in str(error) or re.search(_NO_ELF, str(error))):
                text = _unknown(path, self._wanted)
            if text is not None:
                raise DumpError(f"{path}: {text}") from None


def _only_dump(directory: str) -> str | None:
    """The path of the dump in a directory; None unless there is exactly one."""
    try:
        with os.scandir(directory) as entries:
            paths = [entry.path for entry in islice(entries, MAX_LISTED_FILES + 1)]
    except OSError:
        return None
    if len(paths) > MAX_LISTED_FILES:
        return None
    found = list(islice((path for path in paths if kind(path) == "dump"), 2))
    return found[0] if len(found) == 1 else None


def _unknown(path: str, wanted: Wanted) -> str | None:
    """What is seen of a file of no known format, and what to do; None if it cannot be read."""
    found = _contents(path)
    return None if found is None else f"not a {wanted} but {found}: {_WANTED[wanted]}"


def _contents(path: str) -> str | None:
    """What is seen of a file of no known format; None if it cannot be read."""
    try:
        with open_regular(path) as file:
            start = file.read(_SHOWN)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return None
    text = "an empty file"
    if start:
        is_text = all(0x20 <= byte < 0x7F for byte in start.rstrip(b"\r\n"))
        shown = ascii(start.decode("ascii")) if is_text else start.hex(" ")
        text = f"a file of {size} bytes that starts with {shown}"
    return text


def open_image(path: str, warn: Callable[[str], None] = lambda _: None) -> Image:
    """Opens a kernel's image: a vmlinux, a compressed one, a vmlinuz or a System.map.

    A stripped one gets its debug file, if there is one, and a warning if there is one of another
    build. DumpError, which names the format, if it is another file.
    """
    if _format(_start(path)) is _SYSTEM_MAP:
        return _open_map(path)
    with explained(path, "vmlinux"):
        image = Image(path)
    # A vmcore is an ELF file too.
    if _start(path).startswith(b"\x7fELF") and (text := describe(path, "vmlinux")) is not None:
        raise DumpError(f"{path}: {text}")
    if is_booted_xen(image):
        raise DumpError(f"{path}: {_BOOTED_XEN}, in place of a vmlinux")
    _complete(image, warn)
    return image


def _open_map(path: str) -> Image:
    image = Image.from_map(path)
    if image.symbols().get("linux_banner") is None:
        raise DumpError(
            f"{path}: a list of symbols without linux_banner: not the System.map of a kernel, or a "
            "substitute for it (Debian has the map in the package with debug information)"
        )
    return image


def _complete(image: Image, warn: Callable[[str], None]) -> None:
    """Gives an image without symbols or types its debug file, if there is one on this machine."""
    has_types = any(name in _TYPES for name, *_ in image.sections())
    if image.symbol_source != "symtab" or not has_types:
        from . import debug_files

        debug_files.complete(image, warn)


def open_xen(path: str, warn: Callable[[str], None] = lambda _: None) -> Image:
    """Opens a xen-syms. A stripped one gets its debug file, as by ``open_image``."""
    image = Image(path)
    if _start(path).startswith(b"\x7fELF") and (text := describe(path, "xen-syms")) is not None:
        raise DumpError(f"{path}: {text}")
    _complete(image, warn)
    if is_booted_xen(image):
        raise DumpError(f"{path}: {_BOOTED_XEN}, which has no symbols: {_XEN_SYMS}")
    return image


def is_booted_xen(image: Image) -> bool:
    """Whether it is a hypervisor without symbols."""
    if image.symbol_source == "symtab":
        return False
    start = _start(image.path, _MULTIBOOT_SIZE)
    places = (
        found.start() for magic in _MULTIBOOT for found in re.finditer(re.escape(magic), start)
    )
    return any(at % 4 == 0 for at in places)


def what(path: str) -> str | None:
    """What a file is, in words; None if there is none."""
    if os.path.isdir(path):
        return "a directory"
    if not os.path.exists(path):
        return None
    try:
        with open_regular(path) as file:
            packed = _format(file.read(_HEAD))
    except OSError:
        return "a file that cannot be read"
    found = _format(_start(path)) or packed
    if found is None:
        return _contents(path) or "a file that cannot be read"
    return found.name if found.holds != "compressed" else f"a file {found.name}"


def kind(path: str) -> Literal["dump", "kernel"] | None:
    """What a file holds, by its first bytes; None if they are not known or cannot be read.

    What a compressed file holds counts.
    """
    found = _format(_start(path))
    return found.holds if found is not None and found.holds != "compressed" else None


def describe(path: str, wanted: Wanted) -> str | None:
    """What the file is, and what to do; None if it is what was wanted, or of no known format."""
    try:
        with open_regular(path) as file:
            packed = _format(file.read(_HEAD))
    except OSError:
        return None
    found = packed
    if packed is not None and packed.holds == "compressed":
        found = _format(_start(path))
        what = "dump" if wanted == "dump" else "kernel"
        if found is None or found.holds in ("compressed", what):
            # Compressed images are opened: if not, the error says why.
            return f"{packed.name}: {packed.remedy}" if wanted == "dump" else None
    if found is None:
        return None
    name = found.name if found is packed or packed is None else f"{found.name}, {packed.name}"
    if found.holds in ("compressed", "dump" if wanted == "dump" else "kernel"):
        remedy = _XEN_SYMS if wanted == "xen-syms" and found.remedy == _VMLINUX else found.remedy
        return f"{name}: {remedy}" if remedy else None
    files = "XEN-SYMS VMCORE" if wanted == "xen-syms" else "VMLINUX VMCORE"
    return f"{name}, in place of a {wanted}: the order of the files is {files}"


def _start(path: str, size: int = _HEAD) -> bytes:
    """The first bytes of what a file holds; empty if they cannot be read."""
    try:
        return head(path, size)
    except (OSError, ValueError, DumpError):
        return b""


def is_kdump(path: str) -> bool:
    """Whether the file may be a part of a split dump: kdump-compressed or flattened."""
    return _start(path, 12).startswith((b"KDUMP   ", b"makedumpfile"))


def _has_interpreter(head: bytes) -> bool:
    """Whether an ELF file names a dynamic linker (PT_INTERP), as no kernel does."""
    is_64 = head[4] == 2
    # e_phoff, e_phentsize and e_phnum.
    at, size, count = (32, 54, 56) if is_64 else (28, 42, 44)
    order: Literal["little", "big"] = "little" if head[5] == 1 else "big"

    def number(offset: int, length: int) -> int:
        return int.from_bytes(head[offset : offset + length], order)

    start, step = number(at, 8 if is_64 else 4), number(size, 2)
    entries = range(start, len(head) - 3, step) if step else range(0)
    return any(number(entry, 4) == 3 for entry in entries[: number(count, 2)])


def _format(head: bytes) -> Format | None:
    if head.startswith(b"\x7fELF") and len(head) >= 18:
        # EI_DATA is 1: least significant byte first.
        found = _ELF.get(int.from_bytes(head[16:18], "little" if head[5] == 1 else "big"))
        is_executable = found is not None and found.holds == "kernel"
        return _PROGRAM if is_executable and _has_interpreter(head) else found
    for known in _FORMATS:
        if head.startswith(known.magic, known.offset):
            return known
    return _SYSTEM_MAP if re.match(_SYMBOL_LINE, head) else None
