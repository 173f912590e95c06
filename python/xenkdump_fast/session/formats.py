"""Identifies files given in place of a dump, a vmlinux or a xen-syms, and suggests what to do.

Only consulted after a file failed to open, so a format that a container reads has no row here.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from .._native import DumpError, Image
from . import compression

#: What a file was given as.
Wanted = Literal["dump", "vmlinux", "xen-syms"]


class Format(NamedTuple):
    """A format by its magic number."""

    magic: bytes
    offset: int
    name: str
    #: What such a file holds. A compressed one may hold anything.
    holds: Literal["dump", "kernel", "compressed"]
    #: What to do with it.
    remedy: str


_VMLINUX = "give the uncompressed vmlinux of the build tree or of the debug package"

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
    # Documentation/arch/x86/boot.rst: the magic number of the setup header.
    Format(b"HdrS", 0x202, "a compressed kernel (vmlinuz or bzImage)", "kernel", _VMLINUX),
    Format(b"MZ", 0, "an EFI executable, such as vmlinuz", "kernel", _VMLINUX),
)
#: By e_type.
_ELF = {
    1: Format(b"\x7fELF", 0, "an ELF object file, such as a module", "kernel", _VMLINUX),
    2: Format(b"\x7fELF", 0, "an ELF executable, such as a vmlinux", "kernel", ""),
    3: Format(b"\x7fELF", 0, "an ELF executable, such as a vmlinux", "kernel", ""),
    4: Format(b"\x7fELF", 0, "an ELF core file, such as a vmcore", "dump", ""),
}
_SYSTEM_MAP = Format(b"", 0, "a list of symbols, such as System.map", "kernel", _VMLINUX)
_SYMBOL_LINE = re.compile(rb"[0-9a-f]{8,16} [A-Za-z?] \S+\r?\n")
#: Bytes from the start of a file that are examined.
_HEAD = 0x400


@contextmanager
def explained(paths: str | Sequence[str], wanted: Wanted) -> Iterator[None]:
    """Opens files in the body; a DumpError then names the format of one, if it is known."""
    try:
        yield
    except DumpError:
        for path in [paths] if isinstance(paths, str) else paths:
            if (text := describe(path, wanted)) is not None:
                raise DumpError(f"{path}: {text}") from None
        raise


def open_image(path: str) -> Image:
    """Opens a vmlinux; DumpError, which names the format, if it is another file."""
    with explained(path, "vmlinux"):
        image = Image(path)
    # A vmcore is an ELF file too.
    if (text := describe(path, "vmlinux")) is not None:
        raise DumpError(f"{path}: {text}")
    return image


def kind(path: str) -> Literal["dump", "kernel"] | None:
    """What a file holds, by its first bytes; None if they are not known or cannot be read.

    Of a file that is compressed as a whole, by those of its contents.
    """
    try:
        found = _format(compression.head(path, _HEAD))
    except (OSError, ValueError):
        return None
    return found.holds if found is not None and found.holds != "compressed" else None


def describe(path: str, wanted: Wanted) -> str | None:
    """What the file is, and what to do; None if it is what was wanted, or of no known format."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    found = _format(head)
    if found is None:
        return None
    if found.holds in ("compressed", "dump" if wanted == "dump" else "kernel"):
        return f"{found.name}: {found.remedy}" if found.remedy else None
    files = "XEN-SYMS VMCORE" if wanted == "xen-syms" else "VMLINUX VMCORE"
    return f"{found.name}, in place of a {wanted}: the order of the files is {files}"


def is_kdump(path: str) -> bool:
    """Whether the file may be a part of a split dump: kdump-compressed or flattened."""
    try:
        return compression.head(path, 12).startswith((b"KDUMP   ", b"makedumpfile"))
    except (OSError, ValueError):
        return False


def _format(head: bytes) -> Format | None:
    if head.startswith(b"\x7fELF") and len(head) >= 18:
        # EI_DATA is 1: least significant byte first.
        return _ELF.get(int.from_bytes(head[16:18], "little" if head[5] == 1 else "big"))
    for known in _FORMATS:
        if head.startswith(known.magic, known.offset):
            return known
    return _SYSTEM_MAP if _SYMBOL_LINE.match(head) else None
