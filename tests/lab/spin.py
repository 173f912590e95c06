"""Programs that load known values into all registers and loop without a system call."""

import struct

#: The registers in the order of their numbers in instructions.
_NAMES_64 = (
    "rax",
    "rcx",
    "rdx",
    "rbx",
    "rsp",
    "rbp",
    "rsi",
    "rdi",
    *(f"r{i}" for i in range(8, 16)),
)
_NAMES_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
BASE = 0x0040_0000
_HEADERS_64, _HEADERS_32 = 64 + 56, 52 + 32


def values(word: int) -> dict[str, int]:
    """What each register holds in the loop; the stack pointer is the kernel's choice."""
    names = _NAMES_64 if word == 8 else _NAMES_32
    pattern = 0x5A5A_0000_C0DE_0000 if word == 8 else 0x5A5A_0000
    return {name: pattern + 0x101 * i for i, name in enumerate(names) if name[1:] != "sp"}


def loop(word: int) -> int:
    """The address of the instruction that jumps to itself."""
    headers = _HEADERS_64 if word == 8 else _HEADERS_32
    return BASE + headers + len(_code(word)) - 2


def program(word: int) -> bytes:
    """The program, as a static ELF file."""
    code = _code(word)
    if word == 8:
        start = BASE + _HEADERS_64
        size = _HEADERS_64 + len(code)
        header = struct.pack(
            "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0
        )
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    else:
        start = BASE + _HEADERS_32
        size = _HEADERS_32 + len(code)
        header = struct.pack(
            "<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, start, 52, 0, 0, 52, 32, 1, 0, 0, 0
        )
        segment = struct.pack("<IIIIIIII", 1, 0, BASE, BASE, size, size, 5, 0x1000)
    return header + segment + code


def _code(word: int) -> bytes:
    out = b""
    names = _NAMES_64 if word == 8 else _NAMES_32
    for name, value in values(word).items():
        number = names.index(name)
        if word == 8:
            out += bytes([0x48 | number >> 3, 0xB8 | number & 7]) + struct.pack("<Q", value)
        else:
            out += bytes([0xB8 | number]) + struct.pack("<I", value)
    return out + b"\xeb\xfe"
