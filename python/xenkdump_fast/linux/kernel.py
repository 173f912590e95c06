"""One kernel in memory: symbols, types and memory. Everything in linux/ reads through it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from .._contexts import suppress
from .._native import AbsentError, AddressSpace, Image, MemoryFault, Symbols
from .._typing import TYPE_CHECKING, Literal
from ..budget import Budget, Charged
from ..diagnostics import Warnings
from ..limits import MAX_BTF_SIZE, MAX_LIST_ENTRIES, MAX_STACK_SIZE
from ..parsing import number
from . import compat
from .boot import vmcoreinfo
from .boot.image import BANNER, banner_of
from .boot.locate import Location
from .layouts import Layouts, Member, Number, Untyped

if TYPE_CHECKING:
    from .._native import ListEnd, ListLinks, Types

#: THREAD_SIZE is a page with CONFIG_4KSTACKS on i386.
_MIN_STACK_SIZE = 0x1000


class LinkedList:
    """A linked list, as far as it could be walked."""

    __slots__ = ("end", "entries", "head", "problem")

    def __init__(
        self,
        head: int,
        entries: list[int],
        end: "ListEnd | Literal['overlap']",
        problem: str | None,
    ) -> None:
        self.head = head
        #: Its entries, without the head.
        self.entries = entries
        #: How the walk ended.
        self.end = end
        #: Why it ended early; None if it is complete.
        self.problem = problem


class Kernel(Charged):
    """A Linux kernel in a dump.

    ``virtual`` is its address space, ``memory_held`` the bytes of machine memory that the dump
    holds. Nothing is read before it is needed. Reads are charged to the innermost ``budget``.
    """

    #: The type information in use, once it was needed.
    _typed: "Types | None" = None

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
        self._numbers: dict[str, Number] = {}
        self._missing: set[str] = set()

    def __repr__(self) -> str:
        slide = self.location.slide
        return (
            f"<{type(self).__name__} {self.image.path!r}: {self.location.paging}, slide {slide:#x}>"
        )

    def warn(self, text: str) -> None:
        """Adds a warning about what is missing or damaged."""
        self._warnings.add(text)

    @property
    def warnings(self) -> list[str]:
        """Deduplicated warnings: the first few of those that differ only in numbers."""
        unread = [] if self._typed is None else self._typed.warnings
        return [*self._warnings.texts(), *(f"{self.image.path}: {text}" for text in unread)]

    # Names and types

    @cached_property
    def types(self) -> Layouts:
        """Struct layouts, from all sources."""
        layouts = Layouts(
            self.image,
            lambda: self.vmcoreinfo,
            self._untyped,
            self._types_in_memory,
            lambda: self.types_remedy,
        )
        self._typed = layouts.native
        return layouts

    def _types_in_memory(self) -> "Types":
        """The kernel's own BTF, which a file by ``objcopy --only-keep-debug`` lacks; AbsentError.

        The message is empty if the kernel has none (before 5.2, or without CONFIG_DEBUG_INFO_BTF).
        """
        start, stop = self.symbols.get("__start_BTF"), self.symbols.get("__stop_BTF")
        if start is None or stop is None or not 0 < stop - start <= MAX_BTF_SIZE:
            raise AbsentError("")
        try:
            data = self.virtual.read(start, stop - start)
        except MemoryFault as fault:
            raise AbsentError(f"the BTF in memory cannot be read: {fault}") from None
        return self.image.types_from_btf(data)

    def _untyped(self, why: str) -> Untyped:
        """Layouts without type information; ``Linux`` overrides this to infer them."""
        raise AbsentError(why)

    @cached_property
    def vmcoreinfo(self) -> Mapping[str, str]:
        """The kernel's VMCOREINFO, from what located it or from memory; empty if there is none."""
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
        raise self.untyped(f"no type information for {' or '.join(candidates)}")

    def untyped(self, problem: str) -> AbsentError:
        """The error for a type that is missing; with a remedy if all are."""
        remedy = self.types_remedy if self.types.native is None else ""
        return AbsentError(f"{self.image.path}: {problem}{remedy}")

    @property
    def types_remedy(self) -> str:
        """What follows an error for a kernel without type information."""
        return f": give a vmlinux with debug information{self._package}"

    @cached_property
    def _package(self) -> str:
        """The package with the vmlinux, as messages name it; empty if it is not known."""
        from .boot import debug_package

        try:
            banner = self.cstring(self.symbol("linux_banner"))
            name = debug_package.of(self.release, banner)
        except AbsentError:
            name = None
        return "" if name is None else f" (package {name})"

    def numeric(self, key: str) -> Number:
        """A struct member that is a number, as ``member``. Raises AbsentError if it is not one."""
        found = self._numbers.get(key)
        if found is None:
            member = self.member(key)
            if member.size not in (1, 2, 4, 8):
                text = (
                    f"{key} is not a number: it has {member.size} bytes; string(address + "
                    f"offset({key!r}), {member.size}) reads it as text, virtual.read(...) as bytes"
                )
                raise AbsentError(f"{self.image.path}: {text}")
            width = member.bit_size
            bits = None if width is None else (member.bit_offset or 0, width)
            found = Number(member.offset, member.size, member.signed, bits)
            self._numbers[key] = found
        return found

    def has(self, key: str) -> bool:
        """Whether there is a member ``key``."""
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
        return self.member(key).offset  # raises AbsentError with all candidates

    def variable_type(self, name: str) -> str:
        """The type of a global variable in C syntax, such as ``struct list_head``.

        BTF has those of per-CPU variables, the type of each CPU's instance; others are from a table
        by version (``variables.py``). Raises AbsentError if the type is not known.
        """
        native = self.types.native
        if native is not None:
            with suppress(AbsentError):
                return native.variable(name)
        from . import variables  # the table takes a while to be made

        found = variables.type_of(name, self.version, self.word)
        if found is None:
            raise AbsentError(f"{self.image.path}: the type of the variable {name} is not known")
        return found

    @cached_property
    def spans(self) -> dict[tuple[str, ...], list[tuple[int, int]]]:
        """Offsets and sizes of members that ``structs.read_columns`` read before."""
        return {}

    @cached_property
    def file_systems(self) -> dict[int, str]:
        """Names of file systems that were read, by the address of the ``super_block``."""
        return {}

    @cached_property
    def stack_size(self) -> int:
        """THREAD_SIZE in bytes."""
        sizes = [symbol.size for symbol in self.symbols.all("init_thread_union")]
        with suppress(AbsentError):
            sizes.insert(0, self.types.sizeof("thread_union"))
        for found in sizes:
            if _MIN_STACK_SIZE <= found <= MAX_STACK_SIZE:
                return found
        # arch/x86/include/asm/page_{32,64}_types.h: 16 KiB on x86_64 since 3.15 (6538b8ea886e).
        return 0x4000 if self.word == 8 else 0x2000

    def symbol(self, key: str) -> int:
        """The address of a symbol, by a key of ``compat.SYMBOLS`` or its own name; AbsentError."""
        candidates = compat.SYMBOLS.get(key, (key,))
        for name in candidates:
            address = self.symbols.get(name)
            if address is not None:
                return address
        raise self.missing(*candidates)

    def missing(self, *names: str) -> AbsentError:
        """The error for a kernel that has none of these symbols."""
        # Without CONFIG_KALLSYMS_ALL it has the names of functions and exported variables only.
        remedy = ""
        if self.image.symbol_source == "kallsyms":
            where = "memory" if self.image.is_memory else "its kallsyms"
            remedy = f" in {where}: its vmlinux is needed{self._package}"
        return AbsentError(f"{self.image.path}: no symbol {' or '.join(names)}{remedy}")

    # Memory

    # An address from a damaged dump may be any number. It is taken modulo the address space, so
    # that an invalid one is a MemoryFault like any other.

    def data(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``."""
        self.charge(size)
        return self.virtual.read(address & self.last, size)

    def number(self, address: int, size: int) -> int:
        """The unsigned number of 1, 2, 4 or 8 bytes at ``address``."""
        self.charge(size)
        return self.virtual.word(address & self.last, size)

    def pointer(self, address: int) -> int:
        """The pointer at ``address``."""
        self.charge(self.word)
        return self.virtual.word(address & self.last, self.word)

    def cstring(self, address: int, limit: int = 4096) -> bytes:
        """The bytes at ``address`` up to a NUL, at most ``limit``."""
        self.charge(limit)
        return self.virtual.cstring(address & self.last, limit)

    def string(self, address: int, limit: int = 4096) -> str:
        """The C string at ``address``; bytes that are not UTF-8 are escaped. Raises MemoryFault."""
        return self.cstring(address, limit).decode("utf-8", "backslashreplace")

    def read(self, struct: int, key: str | Number) -> int:
        """The number in a member of the struct at address ``struct``; signed if its type is.

        Raises AbsentError if there is no such member or it is not a number, MemoryFault if it
        cannot be read.
        """
        number = self.numeric(key) if isinstance(key, str) else key
        if not isinstance(number, Number):
            raise TypeError(f"key: the name of a member is needed, not {type(key).__name__}")
        return number.decode(self.number(struct + number.offset, number.size))

    def text(self, struct: int, key: str, limit: int = 4096) -> str:
        """The C string in a member that is an array, or that it points to; empty if it is NULL.

        Raises AbsentError if there is no such member, MemoryFault if it cannot be read.
        """
        member = self.member(key)
        if member.count is not None:
            return self.string(struct + member.offset, min(member.size, limit))
        at = self.pointer(struct + member.offset)
        return self.string(at, limit) if at else ""

    def variable(self, key: str, size: int) -> int:
        """The unsigned number of ``size`` bytes in the variable of that name."""
        return self.number(self.symbol(key), size)

    @property
    def last(self) -> int:
        """The last address; a mask for others."""
        return 0xFFFF_FFFF_FFFF_FFFF if self.word == 8 else 0xFFFF_FFFF

    def object_budget(self, name: str, size: int, most: int | None = None) -> Budget:
        """A budget that counts objects of ``size`` bytes: as many as the dump can hold.

        Each byte belongs to one object. Virtual memory is no limit: page tables can map the same
        page any number of times. ``most`` is another limit on the count.
        """
        count = self.memory_held // size
        return Budget(name, count if most is None else min(count, most))

    def end(self, start: int, size: int) -> int:
        """The first address after ``size`` bytes at ``start``; the last address if there is none.

        A damaged size, or a damaged start, may exceed the address space.
        """
        return min(start + size, self.last)

    def containing(self, member: int, offset: int) -> int:
        """The struct that has the member at address ``member`` at ``offset``: container_of."""
        return (member - offset) & self.last

    def list(
        self, head: int, limit: int = MAX_LIST_ENTRIES, *, backward: bool = False
    ) -> Iterator[int]:
        """The entries of the ``list_head`` at ``head``, without the head.

        Ends with a warning if an entry repeats or cannot be read, after ``limit`` entries, or after
        the number of entries that the dump can hold.
        """
        (found,) = self.lists([head], limit, "backward" if backward else "circular")
        yield from found.entries
        if found.problem is not None:
            self.warn(found.problem)

    def lists(
        self, heads: Sequence[int], limit: int = MAX_LIST_ENTRIES, links: "ListLinks" = "circular"
    ) -> Sequence[LinkedList]:
        """The lists with these heads, walked in one call.

        Each entry is in one of them only; all lists together have at most ``limit`` entries.
        """
        limit = min(limit, self.object_budget("list entries", 2 * self.word).remaining)
        heads = [head & self.last for head in heads]
        walked = self.virtual.lists(heads, self.word, links=links, limit=limit)
        self.charge(2 * self.word * sum(len(entries) for entries, _, _ in walked))
        found = []
        for head, (entries, end, at) in zip(heads, walked, strict=True):
            after = f"after {len(entries)} entries"
            problem = None
            if end == "loop":
                problem = f"the list at {head:#x} loops back to {at:#x} {after}"
            elif end == "shared":
                problem = f"the list at {head:#x} continues in another list {after}"
            elif end == "limit":
                problem = f"the list at {head:#x} has more than {len(entries)} entries"
            elif end == "unreadable" and at is not None:
                reason = self._fault(at + self.word if links == "backward" else at)
                problem = f"the list at {head:#x} breaks off {after}: {reason}"
            found.append(LinkedList(head, entries, end, problem))
        return found

    def _fault(self, address: int) -> str:
        """Why the pointer at an address cannot be read."""
        try:
            return f"{self.pointer(address):#x}"
        except MemoryFault as fault:
            return str(fault)

    @cached_property
    def release(self) -> str:
        """The release of the kernel, from its banner: ``6.1.0-56-amd64``.

        A vmlinux of another build may have its banner elsewhere; then it is that of VMCOREINFO, or
        of the vmlinux.
        """
        try:
            banner = self.cstring(self.symbol("linux_banner"))
        except MemoryFault:
            banner = b""
        if not banner.startswith(BANNER):
            known = self.vmcoreinfo.get("OSRELEASE")
            if known is not None:
                return known
            banner = banner_of(self.image)
        words = banner.removeprefix(BANNER).decode("utf-8", "backslashreplace").split(maxsplit=1)
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
