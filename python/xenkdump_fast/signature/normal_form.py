"""The normal form of a fault: its kind and the functions in which it happened.

docs/signature.md documents it. Whatever changes the text of a signature increments ``VERSION``,
because signatures are stored and compared for years.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256

from .._typing import NamedTuple
from ..limits import MAX_PANIC_TEXT, MAX_SIGNATURE_NAME
from . import functions

#: The version of the normal form; part of what is hashed.
VERSION = 1
#: Functions in a signature. More would tell apart callers of one fault.
DEPTH = 6
_HASH_LENGTH = 8
#: What compilers append to the names of copies and parts of a function.
_SUFFIX = (
    r"\.(?:isra|constprop|part|cold|llvm|lto_priv|localalias|specialized|__uniq|cfi_jt|cfi|unlikely)"
    r"(?:[._]?[0-9a-f]+)*(?=\.|$)"
)
#: The hash of Rust's older names.
_RUST_HASH = r"17h[0-9a-f]{16}E$"
#: Wrappers of one system call: before 4.17 SyS_ and SYSC_, since then by ABI (d5a00528b58c).
_SYSTEM_CALL = r"^(?:__(?:x64|ia32|x32|se|do)(?:_compat)?_sys|SyS|SYSC|C_SYSC)_(?=\w)"
#: A file with a static function, as Xen's symbols have it: "common/timer.c#active_timer".
_FILE = r"^[^#]*#"
#: Words of a panic's text that differ from one machine to the next: numbers, and names like "sda1".
_VARIABLE_WORD = r"\b(?:0[xX][0-9a-fA-F]+|[0-9a-f]*\d[0-9a-f]*|[a-z]+\d\w*)\b"
_DEVICE = r"\((?:device|dev) [^)]*\)"
_SPACES = r"\s+"


class Function(NamedTuple):
    """A function on a stack."""

    name: str
    #: The module that it belongs to; None for the kernel itself.
    module: str | None = None


class Signature(NamedTuple):
    """What identifies a fault."""

    kind: str
    #: The panic's or assertion's own words, normalised; None for kinds that say enough.
    text: str | None
    #: Functions, innermost first, in normal form.
    functions: tuple[str, ...]
    #: The module of the innermost function. Not part of the signature: the same code may be built
    #: into the kernel.
    module: str | None
    #: Where the functions come from: "stack", "log", or "none".
    source: str
    #: Whether some of the functions are guesses of the unwinder.
    guess: bool = False
    #: The line of the log that announces the fault; None without one. Not part of the signature.
    message: str | None = None

    @property
    def normal(self) -> str:
        """``null-dereference:ext4_foo<-bar<-baz``."""
        kind = self.kind if self.text is None else f"{self.kind}({self.text})"
        return f"{kind}:{'<-'.join(self.functions)}" if self.functions else kind

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits that stand for the normal form."""
        return sha256(f"v{VERSION}:{self.normal}".encode()).hexdigest()[:_HASH_LENGTH]

    def __str__(self) -> str:
        return f"{self.normal} #{self.hash}"


def name(function: str) -> str:
    """A function's name without what differs between builds of one kernel."""
    plain = re.sub(_FILE, "", function[:MAX_SIGNATURE_NAME])
    plain = re.sub(_RUST_HASH, "E", re.sub(_SUFFIX, "", plain))
    return re.sub(_SYSTEM_CALL, "sys_", plain)


def panic_text(text: str) -> str:
    """The words of a panic without numbers and names of devices."""
    plain = re.sub(_DEVICE, "(device #)", text[:MAX_PANIC_TEXT])
    return re.sub(_SPACES, " ", re.sub(_VARIABLE_WORD, "#", plain)).strip(" .\n")


def relevant(kind: str, contexts: Iterable[Sequence[Function]]) -> list[Function]:
    """The functions in which a fault happened, of all on a stack.

    ``contexts`` are the parts of the stack between interrupts and exceptions, the innermost first.
    Only one of them is part of the fault: the first that has more than the kernel's own reaction.
    """
    if kind in functions.KINDS_WITHOUT_STACK:
        return []
    for context in contexts:
        found = _of_context(kind, context)
        if found:
            return found
    return []


def _of_context(kind: str, context: Sequence[Function]) -> list[Function]:
    names = [name(function.name) for function in context]
    # The reaction to the fault, and all that it called.
    start = 1 + max((i for i, one in enumerate(names) if functions.is_reaction(one)), default=-1)
    found: list[Function] = []
    for one, function in zip(names[start:], context[start:], strict=True):
        if found and functions.is_entry(one):
            # What was interrupted, or started this, is another matter.
            break
        is_known = functions.is_generic(one, kind) or functions.is_entry(one)
        if is_known or (found and found[-1].name == one):
            continue
        found.append(Function(one, function.module))
        if len(found) == DEPTH:
            break
    return found
