"""Members of Xen's structs by their paths, with the layouts in the DWARF of xen-syms.

What domains and vCPUs are found by is in ``layout``, which works without DWARF. Everything else
that Xen has changes from release to release, and is read by its debug information; ``inferred`` has
layouts of event channels, grant tables and run queues without it.
"""

from collections.abc import Iterator, Sequence

from .._native import AbsentError, Image, Member, Types
from .._typing import NamedTuple
from ..limits import MAX_CPU_MASK, MAX_LISTED_PROBLEMS, MAX_XEN_LIST
from . import crash_info
from .inferred.layouts import InferredMember, InferredTypes
from .memory import XenMemory


class Field(NamedTuple):
    """A number in a struct."""

    offset: int
    size: int
    signed: bool = False
    #: The bits of a bit-field; None for a whole number.
    bits: tuple[int, int] | None = None

    def of(self, data: bytes, at: int = 0) -> int:
        """The number in the struct that starts at ``at``; 0 beyond the end of ``data``."""
        at += self.offset
        found = int.from_bytes(data[at : at + self.size], "little", signed=self.signed)
        if self.bits is None:
            return found
        first, width = self.bits
        return found >> first & (1 << width) - 1


class Structs:
    """Xen's memory as structs."""

    def __init__(self, memory: XenMemory, types: Types | InferredTypes) -> None:
        self.memory = memory
        self.types = types
        self._members: dict[str, Member | InferredMember | None] = {}

    def has(self, path: str) -> bool:
        """Whether this version of Xen has the member."""
        return self._find(path) is not None

    def _find(self, path: str) -> Member | InferredMember | None:
        if path not in self._members:
            try:
                self._members[path] = self.types.member(path)
            except AbsentError:
                self._members[path] = None
        return self._members[path]

    def member(self, path: str) -> Member | InferredMember:
        """The member, as ``domain.arch.p2m``; AbsentError if this version of Xen has none."""
        found = self._find(path)
        if found is None:
            raise AbsentError(f"xen-syms: no debug information for {path}")
        return found

    def field(self, path: str) -> Field:
        """A member that is a number or a pointer; AbsentError."""
        member = self.member(path)
        if member.bit_size is not None:
            return Field(
                member.offset, member.size, False, (member.bit_offset or 0, member.bit_size)
            )
        return Field(member.offset, member.size, member.signed)

    def size(self, name: str) -> int:
        """The size of a type, which is not 0; AbsentError."""
        found = self.types.sizeof(name)
        if found == 0:
            raise AbsentError(f"xen-syms: {name} has no size")
        return found

    def enumerator(self, name: str) -> int | None:
        """The value of an enumerator; None if this version of Xen does not have it."""
        try:
            return self.types.enumerator(name)
        except AbsentError:
            return None

    def number(self, path: str, address: int) -> int | None:
        """The member of the struct at ``address``; None if it cannot be read or does not exist."""
        if not self.has(path):
            return None
        field = self.field(path)
        data = self.memory.read(address + field.offset, field.size)
        return None if data is None else field._replace(offset=0).of(data)

    def pointer(self, path: str, address: int) -> int | None:
        """A pointer to what Xen can read; None for NULL and for any other."""
        found = self.number(path, address)
        return found if found and self.memory.is_xen(found) else None

    def mask(self, path: str, address: int) -> "CpuMask | None":
        """A ``cpumask_t`` or ``cpumask_var_t``; None if it cannot be read or does not exist."""
        if not self.has(path):
            return None
        member = self.member(path)
        # Xen built for few CPUs has the mask itself there.
        at = self.pointer(path, address) if member.kind == "ptr" else address + member.offset
        if at is None:
            return None
        data = self.memory.read(at, min(self.size("cpumask_t"), MAX_CPU_MASK))
        return None if data is None else CpuMask(int.from_bytes(data, "little"), len(data) * 8)

    def list(self, head: int, path: str) -> "Iterator[int]":
        """The structs in the list with that head, by the path of their ``list_head``.

        AbsentError if the list is damaged.
        """
        offset = self.member(path).offset
        next_, back = self.field("list_head.next"), self.field("list_head.prev")
        word = self.memory.word
        at, before = self.memory.pointer(head + next_.offset), head
        seen: set[int] = set()
        while at != head:
            if at is None or at % word or at in seen or not self.memory.is_xen(at):
                raise AbsentError(f"the list at {head:#x} is damaged at {before:#x}")
            if len(seen) == MAX_XEN_LIST:
                raise AbsentError(f"the list at {head:#x} has more than {MAX_XEN_LIST} entries")
            if self.memory.pointer(at + back.offset) != before:
                raise AbsentError(f"the list at {head:#x} is damaged: {at:#x} does not lead back")
            seen.add(at)
            yield at - offset
            before, at = at, self.memory.pointer(at + next_.offset)


class CpuMask(NamedTuple):
    """A set of pCPUs."""

    bits: int
    #: Number of CPUs that Xen was built for.
    width: int

    @property
    def is_all(self) -> bool:
        """Whether all are in it, also those that the machine does not have."""
        return self.bits == (1 << self.width) - 1

    def __str__(self) -> str:
        """As Xen prints it: ``0-3,8``; ``all``, ``none``."""
        if self.is_all:
            return "all"
        runs: list[str] = []
        bits, at = self.bits, 0
        while bits:
            skipped = (bits & -bits).bit_length() - 1
            bits, at = bits >> skipped, at + skipped
            length = (~bits & bits + 1).bit_length() - 1
            runs.append(str(at) if length == 1 else f"{at}-{at + length - 1}")
            bits, at = bits >> length, at + length
        return ",".join(runs) or "none"


def listed(problems: Sequence[str], what: str) -> list[str]:
    """Warnings about the first problems, and how many more there are of ``what``."""
    some = list(problems[:MAX_LISTED_PROBLEMS])
    more = len(problems) - len(some)
    return [*some, f"{more} more {what}"] if more else some


def of(memory: XenMemory, image: Image | None, symbols_path: str | None) -> Structs:
    """The structs of a host; AbsentError, with what is missing, without DWARF of its build.

    ``image`` is its xen-syms, ``symbols_path`` the file that Xen's symbols come from.
    """
    if image is not None:
        try:
            types = image.types()
            types.member("domain.domain_id")
        except AbsentError:
            pass
        else:
            return Structs(memory, types)
    version = crash_info.version(crash_info.read(memory.dump))
    why = "no xen-syms" if symbols_path is None else f"{symbols_path} has no debug information"
    raise AbsentError(
        f"{memory.dump.path}: the layouts of Xen's structs are not known: {why}. Try: --xen-syms "
        "with the xen-syms of this build that has DWARF"
        f"{'' if version is None else f' (Xen {version})'}"
    )
