"""gdb's registers of i386 and x86_64, and the target descriptions that list them.

gdb requires that the feature ``core`` has all of its registers. Those of which no value is known
are sent as unavailable.
"""

from collections.abc import Mapping
from typing import NamedTuple

_FPU = [(f"st{i}", 80, "i387_ext") for i in range(8)] + [
    (name, 32, "int")
    for name in ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
]
_SEGMENTS = [(name, 32, "int32") for name in ("cs", "ss", "ds", "es", "fs", "gs")]
#: Registers of each feature as name, bits and type, in the order of their numbers.
_FEATURES: dict[int, dict[str, list[tuple[str, int, str]]]] = {
    8: {
        "org.gnu.gdb.i386.core": [
            *((name, 64, "int64") for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi")),
            ("rbp", 64, "data_ptr"),
            ("rsp", 64, "data_ptr"),
            *((f"r{i}", 64, "int64") for i in range(8, 16)),
            ("rip", 64, "code_ptr"),
            ("eflags", 32, "int32"),
            *_SEGMENTS,
            *_FPU,
        ],
        "org.gnu.gdb.i386.segments": [("fs_base", 64, "int"), ("gs_base", 64, "int")],
    },
    4: {
        "org.gnu.gdb.i386.core": [
            *((name, 32, "int32") for name in ("eax", "ecx", "edx", "ebx")),
            ("esp", 32, "data_ptr"),
            ("ebp", 32, "data_ptr"),
            ("esi", 32, "int32"),
            ("edi", 32, "int32"),
            ("eip", 32, "code_ptr"),
            ("eflags", 32, "int32"),
            *_SEGMENTS,
            *_FPU,
        ],
    },
}
_ARCHITECTURES = {4: "i386", 8: "i386:x86-64"}
#: Our names of registers that gdb names differently.
_OURS = {"eflags": "rflags"}
#: Registers that a call preserves: with the two of the frame, all that is known of a caller.
PRESERVED = {
    4: ("ebx", "ebp", "esi", "edi"),
    8: ("rbx", "rbp", "r12", "r13", "r14", "r15"),
}


class Register(NamedTuple):
    """A register."""

    name: str
    size: int

    def encode(self, values: Mapping[str, int]) -> bytes:
        """Its value as in a packet: in hex, by bytes from the lowest; ``xx`` if it is unknown."""
        value = values.get(self.name)
        if value is None and self.name in _OURS:
            value = values.get(_OURS[self.name])
        if value is None:
            return b"xx" * self.size
        mask = (1 << 8 * self.size) - 1
        return (value & mask).to_bytes(self.size, "little").hex().encode()


def of(word: int) -> list[Register]:
    """The registers by their numbers, for a kernel of this word size."""
    features = _FEATURES[word].values()
    return [Register(name, bits // 8) for feature in features for name, bits, _ in feature]


def description(word: int) -> str:
    """The target description, in XML."""
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
        "<target>",
        f"<architecture>{_ARCHITECTURES[word]}</architecture>",
    ]
    for feature, registers in _FEATURES[word].items():
        lines.append(f'<feature name="{feature}">')
        for name, bits, kind in registers:
            lines.append(f'<reg name="{name}" bitsize="{bits}" type="{kind}"/>')
        lines.append("</feature>")
    return "\n".join([*lines, "</target>"])
