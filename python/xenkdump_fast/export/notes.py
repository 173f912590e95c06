"""The notes of an exported file: registers, VMCOREINFO, and what was changed."""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .._native import Note

#: NT_PRSTATUS.
_NT_PRSTATUS = 1
#: elf_gregset_t, at 112 of 336 bytes on x86_64 and at 72 of 144 on i386.
_X86_64 = [
    "r15",
    "r14",
    "r13",
    "r12",
    "rbp",
    "rbx",
    "r11",
    "r10",
    "r9",
    "r8",
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "orig_rax",
    "rip",
    "cs",
    "rflags",
    "rsp",
    "ss",
    "fs_base",
    "gs_base",
    "ds",
    "es",
    "fs",
    "gs",
]
_I386 = [
    "ebx",
    "ecx",
    "edx",
    "esi",
    "edi",
    "ebp",
    "eax",
    "ds",
    "es",
    "fs",
    "gs",
    "orig_eax",
    "eip",
    "cs",
    "eflags",
    "esp",
    "ss",
]
#: Names, offset of the registers, offset of pr_pid, size.
_LAYOUTS = {8: (_X86_64, 112, 32, 336), 4: (_I386, 72, 24, 144)}
#: QEMUCPUState of QEMU's target/i386/arch_dump.c, version 1.
_QEMU_REGISTERS = [
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rsp",
    "rbp",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
    "rflags",
]
_QEMU_SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "ldt", "tr", "gdt", "idt")
_QEMU_VERSION, _QEMU_SIZE = 1, 440
#: The owner of our own note, of type 0, whose descriptor is JSON text.
OWNER = "XENKDUMP"
_KERNEL_CS, _KERNEL_SS = 0x10, 0x18


class Cpu(NamedTuple):
    """A CPU as the file has it."""

    number: int
    #: As NT_PRSTATUS has them.
    registers: Mapping[str, int]
    control: Mapping[str, int]
    #: Where they are from, in words.
    source: str
    running: bool
    #: Those that are known, as the source has them; empty if its notes are copied.
    known: Mapping[str, int] = {}
    #: The virtual address of the interrupt descriptor table; 0 if it is not known.
    idt: int = 0

    def unknown(self, word: int) -> list[str]:
        """The registers of the note that are 0 because they are not known."""
        return [
            name
            for name in _LAYOUTS[word][0]
            if name not in self.registers and not name.startswith("orig_")
        ]


def note(owner: str, kind: int, data: bytes) -> bytes:
    """An ELF note."""
    name = owner.encode() + b"\0"
    head = struct.pack("<III", len(name), len(data), kind)
    return head + _padded(name) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _masked(value: int, size: int) -> bytes:
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def prstatus(cpu: Cpu, word: int) -> bytes:
    """NT_PRSTATUS; pr_pid is the number of the CPU and one, as QEMU has it."""
    names, at, pid, size = _LAYOUTS[word]
    data = bytearray(size)
    struct.pack_into("<I", data, pid, cpu.number + 1)
    values = (_masked(cpu.registers.get(name, 0), word) for name in names)
    data[at : at + len(names) * word] = b"".join(values)
    return note("CORE", _NT_PRSTATUS, bytes(data))


def numbered(found: "Iterable[Note]") -> Iterator[bytes]:
    """Copies of notes, with the number of the CPU and one in each pr_pid, as QEMU has it.

    Xen writes 0 into all of them, by which gdb takes all CPUs for one.
    """
    number = 0
    for each in found:
        data = bytearray(each.data)
        if each.kind == "prstatus":
            number += 1
            (at,) = (pid for _, _, pid, size in _LAYOUTS.values() if abs(size - len(data)) <= 8)
            struct.pack_into("<I", data, at, number)
        yield note(each.name, each.type, bytes(data))


def qemu(cpu: Cpu) -> bytes:
    """QEMUCPUState: crash trusts NT_PRSTATUS of CPUs that did not panic only beside it."""
    registers = cpu.registers
    if "cr3" in cpu.control and "rip" in registers:
        # Readers recognise long mode, with flags in the low bits, by the address of the interrupt
        # descriptor table, which may not be known.
        cpu = cpu._replace(control={**cpu.control, "cr3": cpu.control["cr3"] & ~0xFFF})

    def value(name: str) -> int:
        # The names of a 32-bit CPU's registers.
        short = "eflags" if name == "rflags" else f"e{name[1:]}"
        return registers.get(name, registers.get(short, 0))

    data = struct.pack("<II", _QEMU_VERSION, _QEMU_SIZE)
    data += b"".join(_masked(value(name), 8) for name in _QEMU_REGISTERS)
    for name in _QEMU_SEGMENTS:
        base = cpu.idt if name == "idt" else registers.get(f"{name}_base", 0)
        data += struct.pack("<IIII", registers.get(name, 0) & 0xFFFF_FFFF, 0, 0, 0)
        data += _masked(base, 8)
    control = (cpu.control.get(name, 0) for name in ("cr0", "cr1", "cr2", "cr3", "cr4"))
    data += b"".join(_masked(value, 8) for value in control)
    # kernel_gs_base is not known.
    return note("QEMU", 0, data.ljust(_QEMU_SIZE, b"\0"))


def of_cpus(cpus: Iterable[Cpu], word: int) -> bytes:
    """The notes of all CPUs, by number; a CPU without registers has zeros.

    Tools count the notes: the first is that of CPU 0.
    """
    by_number = {cpu.number: cpu for cpu in cpus}
    last = max(by_number, default=-1)
    every = [
        by_number.get(number, Cpu(number, {}, {}, "no registers", False))
        for number in range(last + 1)
    ]
    return b"".join([prstatus(cpu, word) for cpu in every] + [qemu(cpu) for cpu in every])


def vmcoreinfo(text: bytes) -> bytes:
    """VMCOREINFO."""
    return note("VMCOREINFO", 0, text) if text else b""


def without_crash_time(text: bytes) -> bytes:
    """VMCOREINFO without CRASHTIME.

    With it, drgn takes registers from the kernel's crash_notes in place of NT_PRSTATUS: under Xen
    those of the other CPUs are empty.
    """
    lines = text.split(b"\n")
    return b"\n".join(line for line in lines if not line.startswith(b"CRASHTIME="))


def in_kernel_mode(registers: Mapping[str, int], word: int) -> Mapping[str, int]:
    """The registers of a PV vCPU with the selectors of a bare machine's kernel.

    A PV kernel runs at privilege level 3 or 1, by which tools take it for a user's process.
    """
    pc = registers.get("rip" if word == 8 else "eip", 0)
    is_kernel = pc >> 63 if word == 8 else pc >= 0xC000_0000
    if not is_kernel or not registers.get("cs", 0) & 3:
        return registers
    if word == 8:
        return {**registers, "cs": _KERNEL_CS, "ss": _KERNEL_SS}
    return {**registers, "cs": 0x60, "ss": 0x68}


def own(facts: Mapping[str, object]) -> bytes:
    """The note XENKDUMP."""
    return note(OWNER, 0, json.dumps(facts, indent=1).encode())


def offset_of(notes: Sequence[bytes], wanted: bytes) -> tuple[int, int]:
    """Offset and size of the descriptor of one of the notes; size 0 if it is empty."""
    if not wanted:
        return 0, 0
    at = 0
    for each in notes:
        if each is wanted:
            name, size, _ = struct.unpack_from("<III", each)
            return at + 12 + name + -name % 4, size
        at += len(each)
    return 0, 0
