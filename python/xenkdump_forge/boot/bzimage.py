"""Kernels as they are booted: bzImage (Documentation/arch/x86/boot.rst), with and without EFI."""

from __future__ import annotations

import struct

from .encoders import ENCODERS

_SECTOR = 512
#: Sectors of setup code after the first one.
_SETUP = 3
#: Bytes of the code that unpacks the kernel: before and after the payload.
_CODE = 0x400
#: Numbers that look like the relocations behind the kernel.
_RELOCATIONS = struct.pack("<8I", 0, *(0x8100_0000 + 64 * i for i in range(7)))


def write(vmlinux: bytes, compression: str, version: int = 0x020F) -> bytes:
    """A bzImage of a stripped vmlinux. Before version 0x208 nothing says where the payload is."""
    data = vmlinux + _RELOCATIONS
    payload = ENCODERS[compression](data)
    if compression != "gzip":  # whose last four bytes are the same
        payload += struct.pack("<I", len(data))
    setup = bytearray((_SETUP + 1) * _SECTOR)
    setup[0x1F1] = _SETUP
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    if version >= 0x0208:
        struct.pack_into("<II", setup, 0x248, _CODE, len(payload))
    code = b"\x90" * _CODE
    return bytes(setup) + code + payload + code


def unified(kernel: bytes) -> bytes:
    """A unified kernel image: an EFI executable with the kernel in its section ``.linux``."""
    at = 0x400
    head = bytearray(b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80)).ljust(0x80, b"\0")
    # Machine, sections, time, symbols, their number, size of the optional header, characteristics.
    head += b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 2, 0, 0, 0, 240, 0x22E) + bytes(240)
    for name, size, offset in ((b".text", 0x200, 0x200), (b".linux", len(kernel), at)):
        head += struct.pack("<8sIIIIIIHHI", name, size, at, size, offset, 0, 0, 0, 0, 0x40000040)
    return bytes(head.ljust(at, b"\0")) + kernel
