"""One kernel in memory: its names, its types, its memory. All that reads a kernel asks this."""

from collections.abc import Iterator, Mapping
from functools import cached_property

from .._native import AbsentError, AddressSpace, Image, MemoryFault, Symbols
from ..diagnostics import Warnings
from ..parsing import number
from . import compat
from .boot import vmcoreinfo
from .boot.locate import Location
from .layouts import Layouts, Member, Untyped

#: More entries than any list has: as many as there can be pids.
MAX_ENTRIES = 1 << 22


class Kernel:
    """A Linux kernel as the dump holds it.

    ``virtual`` is its address space, ``memory_held`` the bytes of machine memory that the dump
    holds. Nothing is read before it is needed.
    """

    def __init__(
        self,
        image: Image,
        location: Location,
        virtual: AddressSpace,
        memory_held: int,
    ) -> None:
        self.image = image
        self.location = location
        self.virtual = virtual
        self.memory_held = memory_held
        self.word = image.word
        #: The kernel's own symbols; a module may define a symbol of the same name.
        self.symbols: Symbols = image.symbols(location.slide)
        #: Symbols of the kernel and, once modules.py has read them, of modules: to name addresses.
        self.code: Symbols = image.symbols(location.slide)
        self._warnings = Warnings()
        self._members: dict[str, Member] = {}
        self._missing: set[str] = set()

    def warn(self, text: str) -> None:
        """Notes, once, that something is missing or odd."""
        self._warnings.add(text)

    @property
    def warnings(self) -> list[str]:
        """Deduplicated warnings: the first few of those that differ only in numbers."""
        return self._warnings.told()

    # Names and types

    @cached_property
    def types(self) -> Layouts:
        """Struct layouts, from every source there is."""
        return Layouts(self.image, lambda: self.vmcoreinfo, self._untyped)

    def _untyped(self, why: str) -> Untyped:
        """Layouts for want of types. Whatever can tell some reads a kernel, and stands above."""
        raise AbsentError(why)

    @cached_property
    def vmcoreinfo(self) -> Mapping[str, str]:
        """What the kernel says of itself, in a note or in its own memory; or nothing."""
        facts = self.location.facts
        if "OSRELEASE" in facts:
            return facts
        return vmcoreinfo.in_memory(self.symbols, self.virtual, self.word)

    def member(self, key: str) -> Member:
        """A struct member, by its path or a key of ``compat.MEMBERS``. Raises AbsentError."""
        found = self._members.get(key)
        if found is None:
            found = self._members[key] = self._find_member(key)
        return found

    def _find_member(self, key: str) -> Member:
        candidates = compat.MEMBERS.get(key, (key,))
        for path in candidates:
            try:
                return self.types.member(path)
            except AbsentError:
                continue
        raise AbsentError(f"{self.image.path}: no type information for {' or '.join(candidates)}")

    def has(self, key: str) -> bool:
        """Whether ``member(key)`` would find anything."""
        if key in self._missing:
            return False
        try:
            self.member(key)
        except AbsentError:
            self._missing.add(key)
            return False
        return True

    def offset(self, key: str) -> int:
        """Offset of a member in bytes; VMCOREINFO is enough for some. Raises AbsentError."""
        for path in compat.MEMBERS.get(key, (key,)):
            try:
                return self.types.offset(path)
            except AbsentError:
                continue
        return self.member(key).offset  # which says what was looked for

    def symbol(self, key: str) -> int:
        """The address of a symbol, by a key of ``compat.SYMBOLS`` or its own name; AbsentError."""
        candidates = compat.SYMBOLS.get(key, (key,))
        for name in candidates:
            address = self.symbols.get(name)
            if address is not None:
                return address
        raise AbsentError(f"{self.image.path}: no symbol {' or '.join(candidates)}")

    # Memory

    # An address out of a damaged dump may be anything: these take it modulo the address space, so
    # that whatever lies beyond is a MemoryFault like any other.

    def data(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``."""
        return self.virtual.read(address & self.last, size)

    def number(self, address: int, size: int) -> int:
        """The unsigned number of 1, 2, 4 or 8 bytes at ``address``."""
        return self.virtual.word(address & self.last, size)

    def pointer(self, address: int) -> int:
        """The pointer that stands at ``address``."""
        return self.virtual.word(address & self.last, self.word)

    def cstring(self, address: int, limit: int = 4096) -> bytes:
        """The bytes at ``address`` up to a NUL, or as far as ``limit``."""
        return self.virtual.cstring(address & self.last, limit)

    def string(self, address: int, limit: int = 4096) -> str:
        """The C string at ``address``; bytes that are not UTF-8 are escaped. Raises MemoryFault."""
        return self.cstring(address, limit).decode("utf-8", "backslashreplace")

    def read(self, struct: int, key: str) -> int:
        """The number in a member of the struct at address ``struct``; signed if its type is.

        Raises AbsentError if there is no such member or it is not a number, MemoryFault if it
        cannot be read.
        """
        member = self.member(key)
        if member.size not in (1, 2, 4, 8):
            text = f"{self.image.path}: {key} is no number: it has {member.size} bytes"
            raise AbsentError(text)
        value = self.number(struct + member.offset, member.size)
        if member.bit_size is not None:
            value = (value >> (member.bit_offset or 0)) & ((1 << member.bit_size) - 1)
        elif member.signed and value >> (member.size * 8 - 1):
            value -= 1 << (member.size * 8)
        return value

    def variable(self, key: str, size: int) -> int:
        """The unsigned number of ``size`` bytes in the variable of that name."""
        return self.number(self.symbol(key), size)

    @property
    def last(self) -> int:
        """The last address that there is; a mask for others."""
        return 0xFFFF_FFFF_FFFF_FFFF if self.word == 8 else 0xFFFF_FFFF

    def most(self, size: int) -> int:
        """How many structs of ``size`` bytes the dump can hold: each byte belongs to one.

        Virtual memory is no limit: page tables can map one page any number of times.
        """
        return self.memory_held // size

    def end(self, start: int, size: int) -> int:
        """The first address after ``size`` bytes at ``start``; the last address if there is none.

        A damaged size, or a damaged start, may reach past all addresses.
        """
        return min(start + size, self.last)

    def containing(self, member: int, offset: int) -> int:
        """Where the struct starts whose member at ``offset`` lies at ``member``: container_of."""
        return (member - offset) & self.last

    def list(self, head: int, limit: int = MAX_ENTRIES, *, backward: bool = False) -> Iterator[int]:
        """The entries of the ``list_head`` at ``head``, without the head.

        Ends, with a warning, where the list leads back to an entry it had, or out of memory, or has
        more entries than ``limit`` or than the dump can hold.
        """
        link = self.word if backward else 0  # struct list_head { next, prev }
        limit = min(limit, self.most(2 * self.word))
        seen = {head}
        try:
            at = self.pointer(head + link)
            while at not in seen:
                if len(seen) > limit:
                    self.warn(f"the list at {head:#x} goes on after {limit} entries")
                    return
                yield at
                seen.add(at)
                at = self.pointer(at + link)
        except MemoryFault as fault:
            self.warn(f"the list at {head:#x} breaks off after {len(seen) - 1} entries: {fault}")
            return
        if at != head:
            self.warn(f"the list at {head:#x} loops back to {at:#x} after {len(seen) - 1} entries")

    @cached_property
    def release(self) -> str:
        """The release of the kernel, from its banner: ``6.1.0-56-amd64``."""
        banner = self.string(self.symbol("linux_banner"))
        words = banner.removeprefix("Linux version ").split(maxsplit=1)
        return words[0] if words else ""

    @property
    def version(self) -> tuple[int, ...]:
        """The leading numbers of the release, ``(2, 6, 16, 13)``; empty if unknown."""
        numbers: list[int] = []
        try:
            parts = self.release.replace("-", ".").split(".")
        except AbsentError:
            return ()
        for part in parts:
            found = number(part) if part.isdecimal() else None
            if found is None:
                break
            numbers.append(found)
        return tuple(numbers)
