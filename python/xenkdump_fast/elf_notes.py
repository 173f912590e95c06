"""Writes ELF notes and the header of a core file: what tools read about CPUs and the kernel."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NT_PRSTATUS = 1
#: Type of the notes VMCOREINFO and QEMU.
NT_VMCOREINFO = 0

_ET_CORE, _PT_NOTE = 4, 4
_EM_386, _EM_X86_64 = 3, 62
#: By the size of a word: ELF class, machine, ELF header, program header and its offset.
_HEADERS = {
    4: struct.Struct("<16sHHIIIIIHHHHHH"),
    8: struct.Struct("<16sHHIQQQIHHHHHH"),
}
_IDENT = {4: b"\x7fELF\x01\x01\x01".ljust(16, b"\0"), 8: b"\x7fELF\x02\x01\x01".ljust(16, b"\0")}
_PROGRAM_HEADERS = {4: struct.Struct("<8I"), 8: struct.Struct("<IIQQQQQQ")}


class _Prstatus(NamedTuple):
    """struct elf_prstatus (include/linux/elfcore.h) of one word size."""

    size: int
    pid: int
    registers: int
    #: Registers in the order of struct user_regs_struct.
    names: tuple[str, ...]


_I386 = "ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss"
_X86_64 = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss "
    "fs_base gs_base ds es fs gs"
)
_PRSTATUS = {
    4: _Prstatus(144, 24, 72, tuple(_I386.split())),
    8: _Prstatus(336, 32, 112, tuple(_X86_64.split())),
}
_ALIASES = {"rflags": "eflags"}


def note(name: str, number: int, data: bytes) -> bytes:
    """One note: its name, type and descriptor, padded."""
    owner = name.encode() + b"\0"
    header = struct.pack("<III", len(owner), len(data), number)
    return header + _padded(owner) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data.ljust(len(data) + 3 & ~3, b"\0")


def prstatus(registers: Mapping[str, int], pid: int, word: int) -> bytes:
    """The descriptor of an NT_PRSTATUS note; registers that are not known are 0."""
    layout = _PRSTATUS[word]
    mask = (1 << 8 * word) - 1
    data = bytearray(layout.size)
    data[layout.pid : layout.pid + 4] = struct.pack("<I", pid & 0xFFFF_FFFF)
    at = layout.registers
    for name in layout.names:
        value = registers.get(name, registers.get(_ALIASES.get(name, name), 0))
        data[at : at + word] = (value & mask).to_bytes(word, "little")
        at += word
    return bytes(data)


def prstatus_notes(cpus: Iterable[tuple[int, Mapping[str, int]]], word: int) -> bytes:
    """NT_PRSTATUS notes of CPUs: ``pr_pid`` and registers of each."""
    return b"".join(
        note("CORE", NT_PRSTATUS, prstatus(registers, pid, word)) for pid, registers in cpus
    )


def notes_only_core(notes: Sequence[bytes], word: int) -> bytes:
    """A core file that has notes and no memory."""
    header, program = _HEADERS[word], _PROGRAM_HEADERS[word]
    data = b"".join(notes)
    machine = _EM_X86_64 if word == 8 else _EM_386
    start = header.size + program.size
    sizes = (header.size, program.size, 1, 0, 0, 0)
    elf = header.pack(_IDENT[word], _ET_CORE, machine, 1, 0, header.size, 0, 0, *sizes)
    if word == 8:
        segment = program.pack(_PT_NOTE, 0, start, 0, 0, len(data), len(data), 4)
    else:
        segment = program.pack(_PT_NOTE, start, 0, 0, len(data), len(data), 0, 4)
    return elf + segment + data
