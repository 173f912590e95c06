"""The extension module: thin classes over the Rust core.

Addresses and frame numbers are ints, sizes are in bytes, and numbers in memory are little-endian.
Objects may be shared between threads. After ``close()`` every use raises ValueError.
"""

import os
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Mapped
from typing import Any, Literal, final, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import Buffer

StrPath = str | os.PathLike[str]
Paging = Literal["x86", "x86-pae", "x86_64", "x86_64-la57"]
WordSize = Literal[4, 8]
SymbolSource = Literal["symtab", "kallsyms", "map"]

#: What a symbol names, as far as its source says: a label or an unknown one is ``notype``.
SymbolKind = Literal["func", "object", "notype"]
SymbolBinding = Literal["global", "weak", "local"]
#: The kind of a type. The names are those of BTF.
TypeKind = Literal[
    "void",
    "int",
    "float",
    "ptr",
    "array",
    "struct",
    "union",
    "enum",
    "enum64",
    "fwd",
    "typedef",
    "volatile",
    "const",
    "restrict",
    "atomic",
    "func",
    "func_proto",
    "var",
    "datasec",
    "decl_tag",
    "type_tag",
    "unknown",
]

#: What a path lacks: a struct or a name that cannot be read, or what exceeds a limit.
PathLoss = Literal["node", "name", "tree", "depth", "structs", "size", "steps"]
#: How the kernel links a list: list_head forward and backward, hlist_head.
ListLinks = Literal["circular", "backward", "null-terminated"]
#: How the walk of a list ended.
ListEnd = Literal["complete", "loop", "shared", "limit", "unreadable"]

#: A single address or frame number.
Scalar = int | np.integer[Any]
#: Addresses or frame numbers: a one-dimensional array or buffer of integers, or a list, tuple or
#: range of ints. Only uint64 in native byte order is used in place.
Integers = NDArray[np.integer[Any]] | Buffer | Sequence[int]
#: Any array or buffer; what it must be is in the docstring of the call.
AnyArray = NDArray[Any] | Buffer

#: Xen's virtual memory, the frame table's address in it, its number of elements, the size of one,
#: and the offset and the size of ``type_info`` in it.
FrameTable = tuple[AddressSpace, int, int, int, int, int]

#: What each number that a batch puts into ``status`` means; 0 is "ok".
STATUS: tuple[str, ...]
#: That of this package.
VERSION: str

class DumpError(Exception):
    """The file is not a dump, or is damaged beyond use (exit status 3)."""

class AbsentError(DumpError):
    """The dump does not hold what was asked for (exit status 1)."""

class MemoryFault(AbsentError):
    """An address cannot be read or translated.

    ``address`` is the first address that failed, ``kind`` the kind of address it is, ``reason`` the
    cause without the context that the message may start with.
    """

    address: int
    kind: Literal["machine", "pseudo-physical", "virtual"]
    reason: str

def zstd_obstacle(path: StrPath) -> str | None:
    """Why a zstd file cannot be read in place, as the end of a sentence; None if it can.

    Raises OSError if it cannot be opened.
    """

def zstd_content_size(start: bytes) -> int | None:
    """The size of the contents of the first frame, if its header, which is in ``start``, has it."""

def split_identity(path: StrPath) -> bytes | None:
    """What the parts of the split dump that the file is a part of have in common.

    None if it is no part of one, or cannot be read. Only the headers of the file are read.
    """

def disassemble(
    code: bytes,
    address: int,
    word: WordSize,
    *,
    notation: Literal["att", "intel"] = "att",
    limit: int = 4096,
) -> list[tuple[int, int, str, int | None]]:
    """Disassembles x86 code that is at ``address``: at most ``limit`` instructions.

    Returns ``(address, size in bytes, text, target)`` of each. The text is written as by objdump,
    without names of symbols. The target is where it jumps or what it refers to relative to the
    program counter, else None. A byte that starts no instruction is ``(bad)``; an instruction
    that is cut by the end of ``code`` is left out. Raises ValueError for an unknown notation.
    """

@final
class ZstdDecoder:
    """Decompresses a zstd file piece by piece."""

    def __new__(cls) -> ZstdDecoder:
        """A decoder at the start of a file. Raises MemoryError if there is no memory for it."""
    def decode(self, data: bytes, size: int) -> tuple[int, bytes]:
        """Decompresses ``data`` until there are ``size`` bytes.

        Returns how many bytes of ``data`` were taken, and what came of them. Raises ValueError,
        with zstd's reason, if it is corrupt.
        """
    @property
    def at_end(self) -> bool:
        """Whether what was decompressed so far ends with a whole frame."""

@final
class Dump:
    """A dump file, opened read-only."""

    def __new__(
        cls,
        path: StrPath | Sequence[StrPath],
        *,
        format: Literal["raw"] | None = None,  # noqa: A002 - as in open()
        cache_size: int | None = None,
    ) -> Dump:
        """Opens the file at ``path`` and reads its headers and notes, but no memory.

        Raises OSError if the file cannot be opened, DumpError if it is not a dump.
        """
    @property
    def path(self) -> str:
        """Path of the file, as given."""
    @property
    def format(self) -> str:
        """The container, in words: ``ELF64 vmcore``, ``xl dump-core``, ..."""
    @property
    def size(self) -> int:
        """Size of the file in bytes."""
    @property
    def memory_held(self) -> int:
        """Bytes of machine memory in the dump, uncompressed: limits on work scale with this.

        Bytes of the file that are held under many addresses count once.
        """
    @property
    def memory_size(self) -> int:
        """Bytes of memory that the machine had according to the headers, with what was excluded."""
    @property
    def pages_decoded(self) -> int:
        """How many pages were decompressed so far, each as often as it was.

        0 for formats with plain bytes.
        """
    @property
    def dump_level(self) -> int | None:
        """Which kinds of pages makedumpfile excluded, as its ``-d``; None if it is not recorded."""
    @property
    def machine_type(self) -> int:
        """``e_machine`` of the ELF header: 3 is EM_386, 62 is EM_X86_64."""
    @property
    def word(self) -> WordSize:
        """Word size of the ELF headers in bytes; the kernel's may differ."""
    @property
    def warnings(self) -> list[str]:
        """Defects that do not prevent its use, as far as they are known.

        Some are found when memory is read.
        """
    @property
    def notes(self) -> list[Note]:
        """Every ELF note, in file order."""
    @property
    def segments(self) -> list[tuple[int, int, int]]:
        """``(machine address, bytes in the file, bytes in memory)`` of every PT_LOAD."""
    @property
    def vcpu_contexts(self) -> list[dict[str, Any]]:
        """Registers of every vCPU in vCPU order; empty unless the file is of a single domain.

        Each dict has ``id``, ``source`` (where the file has them), ``word`` (bytes), ``flags``,
        ``registers`` (name to value), ``cr`` (control registers as stored), ``root`` (machine
        address of the top page table) and ``efer`` (None unless it is recorded).
        """
    @property
    def shared_info(self) -> bytes | None:
        """The domain's shared_info page if the container stores it apart, else None."""
    @property
    def domain_kind(self) -> Literal["pv", "translated"] | None:
        """The kind of guest if the file is of a single domain, else None."""
    @property
    def is_normalised(self) -> bool:
        """True if page tables of a PV guest hold pfns: machine addresses are pseudo-physical."""
    @property
    def auto_translated(self) -> bool:
        """True if the memory is that of a translated guest (HVM or PVH)."""
    @property
    def machine(self) -> AddressSpace:
        """Machine memory."""
    def physical(self, p2m: P2M | None) -> AddressSpace:
        """Pseudo-physical memory of the domain with this P2M; None for a bare machine."""
    def bare(
        self,
        p2m: P2M | None,
        paging: Paging,
        roots: list[int],
        *,
        frame_table: FrameTable | None = None,
        altered: list[tuple[int, int, int]] | None = None,
    ) -> tuple[Dump, PageTables]:
        """A PV domain as a dump of its own, as if it ran on a bare machine, without notes.

        Its machine addresses are the domain's physical ones, and its page tables, of the format
        ``paging``, hold pfns. They are found below the ``roots`` (machine addresses) and by Xen's
        ``frame_table``. ``altered`` are words that differ from memory: ``(physical address, value,
        size)``. Without a P2M, machine addresses are the physical ones, and only these words
        differ. Closing it closes this dump too.
        """
    def guest(self, p2m: P2M, size: int) -> Dump:
        """A translated guest (HVM, PVH) as a dump of its own, without notes.

        Its machine addresses are the guest's physical ones. ``size`` is the size of the guest's
        memory in bytes, with which limits on work scale. Closing it closes this dump too.
        """
    def virtual(
        self,
        root: int,
        paging: Paging,
        *,
        encryption_mask: int | None = None,
        p2m: P2M | None = None,
    ) -> AddressSpace:
        """The address space of the page tables below ``root``, a machine address as in cr3.

        With ``p2m`` they are those of a translated guest (HVM, PVH) with that P2M: ``root`` and the
        addresses in the tables are the guest's physical ones.

        ``encryption_mask`` is the bit that marks encrypted memory in page-table entries (AMD SME),
        0 if there is none. It defaults to ``NUMBER(sme_mask)`` in the dump's VMCOREINFO, and to 0
        with ``p2m``.

        Raises ValueError for an unknown ``paging``, or an ``encryption_mask`` that is not a single
        address bit of the format.
        """
    def release(self) -> None:
        """Gives back memory that only caches bytes of the file, as after a search of much memory.

        Later reads read them again. ``Dump.guest`` has no memory of its own: it does nothing there.
        """
    def close(self) -> None:
        """Invalidates this dump and everything made from it.

        Later uses raise ValueError, and so do batches that run in other threads. The mapping of the
        file is released with the last object made from it.
        """

@final
class PageTables:
    """The page tables of a PV domain, and what was noticed while they were searched for."""

    def tables(self) -> list[tuple[int, int]]:
        """The pfn and the level of each, by ascending pfn."""
    @property
    def walked(self) -> int:
        """Number of page tables that the walk from the roots found."""
    @property
    def typed(self) -> int | None:
        """Number of page tables according to Xen's frame table.

        None if it was not used, or does not agree with the walk.
        """
    @property
    def conflicts(self) -> int:
        """Number of page tables with different levels in the frame table and in the walk."""
    @property
    def untyped(self) -> int:
        """Number of pages that are below a table but are no tables in the frame table."""
    @property
    def unreadable(self) -> int:
        """Number of page tables that the walk could not read."""
    @property
    def foreign_roots(self) -> int:
        """Roots that are no frames of the domain."""
    @property
    def unread(self) -> int:
        """Elements of the frame table that could not be read."""
    @property
    def exhausted(self) -> bool:
        """Whether the search ended early: more tables were found than the dump can hold."""
    def __len__(self) -> int:
        """Number of page tables."""

@final
class Note:
    """One ELF note."""

    @property
    def name(self) -> str:
        """The owner: ``CORE``, ``VMCOREINFO``, ``Xen``, ..."""
    @property
    def name_size(self) -> int:
        """``n_namesz``: bytes of the name, including the terminating NUL."""
    @property
    def type(self) -> int:
        """``n_type``."""
    @property
    def type_name(self) -> str | None:
        """Name of the constant for ``type``; None if unknown."""
    @property
    def size(self) -> int:
        """``n_descsz``: bytes of the descriptor."""
    @property
    def offset(self) -> int:
        """Offset of the note's header in the file, in bytes."""
    @property
    def data(self) -> bytes:
        """The descriptor; shorter than ``size`` if it cannot be read. That of a device dump is not
        kept: it may have many MiB.
        """
    @property
    def kind(self) -> str:
        """The layout of the descriptor: ``prstatus``, ``vmcoreinfo``, ...; ``raw`` if unknown."""
    @property
    def fields(self) -> dict[str, Any]:
        """The decoded descriptor: field name to value, in layout order; empty for ``raw``."""
    @staticmethod
    def prstatus(data: bytes) -> dict[str, Any] | None:
        """Decodes ``data`` as the descriptor of an NT_PRSTATUS note.

        Returns its fields as ``fields`` does, or None if no kernel writes descriptors of this size.
        """

@final
class AddressSpace:
    """Memory under one kind of address.

    What cannot be read or translated raises MemoryFault, and so does an int outside 0 to 2**64 - 1.
    Missing memory never reads as zeros. Long reads and calls on long arrays release the GIL.

    ``Integers`` arguments are one-dimensional arrays of integers, contiguous or strided, or lists,
    tuples and ranges of ints. Arrays of uint64 in native byte order are used in place, all others
    are converted once. ``out`` is an array to reuse for the result; it must have the result's shape
    and type and share no memory with the other arrays. ``threads`` is the maximum number of
    threads; the default is all CPUs for long arrays, one for short ones. Arrays of the wrong shape
    or type raise TypeError or ValueError. No thread may call ``resize`` with ``refcheck=False`` on
    an array that a call is using: numpy frees its memory then.

    The same rule applies to every call: an element that has no result raises MemoryFault, which
    names the first one, as a single number does; ``out`` may have been written in part then. With
    ``status``, a one-dimensional uint8 array, the call does not raise for them: each element gets
    an index into ``STATUS`` there, and those that are not 0 have no result. An element outside 0 to
    2**64 - 1 always raises MemoryFault.
    """

    @property
    def kind(self) -> Literal["machine", "pseudo-physical", "virtual"]:
        """The kind of address."""
    @property
    def paging(self) -> Paging | None:
        """The page-table format; None unless ``kind`` is ``virtual``."""
    @property
    def root(self) -> int | None:
        """Machine address of the top page table; None unless ``kind`` is ``virtual``."""
    def read(self, address: int, size: int) -> bytes:
        """Returns the ``size`` bytes at ``address``. Raises MemoryFault."""
    def u8(self, address: int) -> int:
        """Returns the unsigned 8-bit number at ``address``. Raises MemoryFault."""
    def u16(self, address: int) -> int:
        """Returns the unsigned 16-bit number at ``address``. Raises MemoryFault."""
    def u32(self, address: int) -> int:
        """Returns the unsigned 32-bit number at ``address``. Raises MemoryFault."""
    def u64(self, address: int) -> int:
        """Returns the unsigned 64-bit number at ``address``. Raises MemoryFault."""
    def word(self, address: int, size: int) -> int:
        """Returns the unsigned number of ``size`` bytes at ``address``.

        Raises MemoryFault, or ValueError unless ``size`` is 1, 2, 4 or 8.
        """
    def cstring(self, address: int, limit: int = 4096) -> bytes:
        """Returns the bytes at ``address`` up to the first NUL, at most ``limit``.

        Raises MemoryFault if a byte before the NUL or the limit is missing.
        """
    def readinto(self, address: int, buffer: AnyArray, *, threads: int | None = None) -> int:
        """Fills ``buffer``, a writable contiguous buffer of any type, from ``address``.

        Returns its size in bytes. Raises MemoryFault; part of the buffer may have been written
        then.
        """
    def read_array(
        self, address: int, dtype: DTypeLike, count: int, *, threads: int | None = None
    ) -> NDArray[Any]:
        """Returns a new array of shape ``(count,)`` with the memory at ``address``.

        Give ``dtype`` in little-endian byte order. Raises MemoryFault.
        """
    def read_many(
        self,
        addresses: Integers,
        size: int,
        *,
        out: AnyArray | None = None,
        status: AnyArray | None = None,
        threads: int | None = None,
    ) -> NDArray[np.uint8]:
        """Returns ``size`` bytes at each address: uint8, shape ``(len(addresses), size)``.

        With ``status``, the row of an address that cannot be read is zeros and its status is not 0.
        Without ``status``, MemoryFault is raised for the first such address.
        """
    def read_members(
        self, structs: Sequence[int], members: Sequence[tuple[int, int]]
    ) -> list[list[int | bytes | None]]:
        """Returns for each ``(offset, size)`` of ``members`` its values in all ``structs``.

        ``structs`` are addresses. Members of 1, 2, 4 or 8 bytes are unsigned numbers, others are
        bytes. A value that cannot be read is None.
        """
    def read_struct_many(
        self,
        addresses: Integers,
        members: np.dtype[Any] | Mapped[str, tuple[int, Any]] | Iterable[tuple[str, int, Any]],
        *,
        out: NDArray[Any] | None = None,
        status: AnyArray | None = None,
        threads: int | None = None,
    ) -> NDArray[np.void]:
        """Reads members of the struct at each address: a structured array with a field for each.

        ``members`` has ``(name, offset, dtype)`` for each, as a sequence or as a mapping of names
        to ``(offset, dtype)``; or it is a dtype whose fields have offsets, as
        ``Kernel.struct_dtype`` returns it. In place of a dtype there may be a size in bytes: 1, 2,
        4 and 8 are unsigned numbers, other sizes opaque bytes. Fields of the result are in the
        same order, one after another.

        Each page of a struct is looked up once. ``out``, ``status`` and ``threads`` are as in
        ``read_many``. With ``status``, a struct with an unreadable member is zeros as a whole; its
        status is that of its first unreadable member by offset.
        """
    def read_each(self, addresses: Sequence[int], sizes: Sequence[int]) -> list[bytes | None]:
        """Returns ``sizes[i]`` bytes at ``addresses[i]``; None for those that cannot be read."""
    def pointers(
        self, addresses: Sequence[int], counts: Sequence[int], word: WordSize, *, flags: int = 0
    ) -> tuple[list[int | None], list[int], list[int]]:
        """Reads arrays of pointers; returns three lists.

        - For each array, the number of its pointers that are not NULL; None if it cannot be read.
        - The indices of these pointers within their arrays, one array after another.
        - The pointers themselves in the same order, with the bits ``flags`` cleared.

        ``addresses[i]`` is the address of an array of ``counts[i]`` elements of ``word`` bytes.
        """
    def paths(
        self,
        nodes: Sequence[int],
        trees: Sequence[int | None],
        word: WordSize,
        node: tuple[int, int, int, int],
        tree: tuple[int, int, int, int],
        limits: tuple[int, int, int, int],
    ) -> tuple[list[str], list[tuple[PathLoss, int]], int, int, int]:
        """Returns the paths of ``nodes`` in the ``trees`` at the same positions.

        A path has the names from the root of all trees to the node, joined by ``/``. Without a tree
        it is the name of the node. An unknown name is ``?``. Bytes that are not UTF-8 are escaped.

        - ``node`` has offsets in the struct of a node (a dentry): of the pointer to its parent, of
          the pointer to its name, of the length of the name. The last number is the size of the
          length in bytes.
        - ``tree`` has offsets in the struct of a tree (a mount): of the member that ``trees``
          points to, of the pointer to the parent tree, of the pointer to the node that it is
          mounted on, of the pointer to its root. A struct at the top points to itself.
        - ``limits`` are the nesting depth, the nodes and trees of all paths, the bytes of all
          paths, and the nodes and trees that all paths lead through, each as often as a path does.

        Returns the paths; what each incomplete path lacks, with the address; the number of nodes
        and trees visited; the number of bytes of names and paths; the number of nodes and trees
        that the paths lead through.
        """
    def lists(
        self,
        heads: Sequence[int],
        word: WordSize,
        *,
        links: ListLinks = "circular",
        limit: int,
    ) -> list[tuple[list[int], ListEnd, int | None]]:
        """Walks the kernel's linked lists that have their heads at these addresses.

        ``word`` is the size of a pointer in bytes, ``limit`` the maximum number of nodes of all
        lists together. No node is visited twice. Returns for each list its nodes without the head,
        how the walk ended, and the address where it ended early: the repeated node (``loop``), the
        node that is in another list (``shared``), the node beyond the limit, or the node (or head)
        whose link cannot be read.
        """
    @overload
    def translate(self, address: Scalar) -> int:
        """Translates one address, or an array of them, to machine addresses.

        An int gives an int, an array a uint64 array of the same length. Without ``status``, an
        address without a translation raises MemoryFault. With ``status``, a uint8 array of the same
        length, its result is 2**64 - 1 and its status is the reason.
        """
    @overload
    def translate(
        self,
        address: Integers,
        *,
        out: AnyArray | None = None,
        status: AnyArray | None = None,
        threads: int | None = None,
    ) -> NDArray[np.uint64]: ...
    def iter_mapped(self, start: int = 0, end: int | None = None) -> MappedRanges:
        """Iterates over the mapped ranges between ``start`` and ``end`` (exclusive), ascending.

        For machine memory these are the ranges that the dump holds, for pseudo-physical memory the
        frames of the domain. ``end`` defaults to 2**64.
        """
    def mapping(self, address: int) -> Mapping:
        """Walks the page tables for ``address``.

        Raises TypeError unless ``kind`` is ``virtual``, and MemoryFault if the address is not
        mapped; its ``levels`` attribute then has the entries of the incomplete walk.
        """
    def find(
        self, needle: bytes, start: int, end: int, *, limit: int = 64, most: int = 1 << 30
    ) -> list[int]:
        """Returns the addresses of ``needle`` between ``start`` and ``end`` (exclusive).

        ``end`` may be up to 2**64, which includes the last byte. Returns the first ``limit``
        addresses in ascending order; if the list is full, there may be more. Stops after ``most``
        bytes of memory, and then issues a RuntimeWarning that names the address; ``search`` returns
        it. Missing memory is skipped, and only memory that is mapped and in the dump counts against
        ``most``, apart from at least 64 bytes for each piece, and 4096 for each page table or
        mapped range that the dump lacks.

        Raises TypeError for the pseudo-physical memory of a domain, whose frames are not in order,
        and MemoryError if there is no memory for the list.
        """
    def search(
        self, needle: bytes, start: int, end: int, *, limit: int = 64, most: int = 1 << 30
    ) -> SearchResult:
        """Like ``find``, without the warning, and also returns how much was searched.

        Callers that search many address spaces can charge this to a budget. During a search of much
        memory, pages of the file are given back, as by ``Dump.release``.
        """
    def close(self) -> None:
        """Invalidates this object; later uses raise ValueError."""

@final
class SearchResult:
    """The result of ``AddressSpace.search``."""

    @property
    def addresses(self) -> list[int]:
        """The addresses, in ascending order."""
    @property
    def searched(self) -> int:
        """Bytes searched, as counted against ``most``."""
    @property
    def next(self) -> int | None:
        """The address to continue from; None if all memory in the range was searched.

        Not None if the search stopped because of ``limit`` or ``most``.
        """

@final
class Mapping:
    """How a virtual address is mapped."""

    @property
    def machine(self) -> int:
        """Machine address of the byte."""
    @property
    def physical(self) -> int | None:
        """Physical address of the byte in a translated guest; None for other page tables."""
    @property
    def page_size(self) -> int:
        """Size of the page in bytes."""
    @property
    def flags(self) -> int:
        """The effective x86 flags of the walk.

        Writable and user are set if every level grants them, no-execute if any level sets it. PAT
        is always bit 12.
        """
    @property
    def flag_names(self) -> list[str]:
        """Names of the bits in ``flags``, lowest bit first, spelled as in crash."""
    @property
    def levels(self) -> list[tuple[int, int, int, int]]:
        """``(level, address of the table, index, entry)`` from the root down.

        Addresses are machine addresses, or in a translated guest its physical ones; level 1 maps 4
        KiB pages.
        """

@final
class MappedRange:
    """A range of addresses that is mapped to one range of machine memory."""

    @property
    def address(self) -> int:
        """The first address."""
    @property
    def machine(self) -> int:
        """Machine address of the first byte."""
    @property
    def size(self) -> int:
        """Size in bytes."""
    @property
    def page_size(self) -> int:
        """Size of its pages in bytes; 4096 if there are no page tables."""
    @property
    def flags(self) -> int:
        """As in ``Mapping.flags``; 0 if there are no page tables."""
    @property
    def flag_names(self) -> list[str]:
        """Names of the bits in ``flags``, lowest bit first."""

@final
class MappedRanges:
    """An iterator over mapped ranges. The page tables are read as it advances."""

    def __iter__(self) -> MappedRanges:
        """Returns itself."""
    def __next__(self) -> MappedRange:
        """Returns the next range. Raises StopIteration, or ValueError once closed."""
    @property
    def missing(self) -> int:
        """Number of page tables so far that could not be read."""
    @property
    def first_missing(self) -> str | None:
        """The first reason counted in ``missing``; None if there was none."""

@final
class ExportControl:
    """The progress of an export in another thread, which can be stopped."""

    def __new__(cls) -> ExportControl:
        """Nothing is done."""
    @property
    def done(self) -> int:
        """Pages that are done."""
    def stop(self) -> None:
        """Stops the export: ``export`` returns early."""

def export(
    dumps: tuple[Dump, Dump],
    path: StrPath,
    runs: tuple[AnyArray, AnyArray],
    format: Literal["elf", "kdump", "lime", "raw"],  # noqa: A002
    options: dict[str, Any],
    control: ExportControl,
) -> dict[str, Any]:
    """Writes the memory of the first of ``dumps`` to a new file, readable by its owner only.

    The second is the dump whose file that memory is in. ``runs`` are two arrays with a first pfn
    and a number of pages in turn, ascending: what is written, and what the machine has.
    ``options`` are the headers of the format, and the number of ``threads``. Returns the numbers
    of pages ``written``, ``zero``, ``lost`` (not readable), ``lost_as_zeros`` (those of them that
    read as zeros in the file), the ``first_lost`` pfn, and whether it ``is_stopped``. Raises
    OSError if the file exists or cannot be written, AbsentError if the format cannot hold the
    memory.
    """

P2MSource = Literal["cr3", "list", "linear", "pvops-tree", "dump-core", "nested"]
NestedFormat = Literal["npt", "npt-5", "ept", "ept-5"]
#: "no table" is an entry on a page of the P2M that the dump lacks. Those after it are only in the
#: P2M of a translated guest.
P2MKind = Literal[
    "frame",
    "invalid",
    "foreign",
    "identity",
    "out of range",
    "no table",
    "grant",
    "mmio",
    "emulated",
    "populate on demand",
    "paged out",
    "broken",
]
P2MEntry = tuple[P2MKind, int | None]

@final
class P2M:
    """A domain's table from pseudo-physical frame numbers (pfn) to machine frame numbers (mfn).

    It is read in place, from the pages of the dump that hold it. Arrays, ``out``, ``status`` and
    ``threads`` are as in AddressSpace.
    """

    @staticmethod
    def frame_list(dump: Dump, mfn: int, word: WordSize, pages: int | None = None) -> P2M:
        """Opens the frame-list tree whose top page is ``mfn``.

        ``word`` is the guest's word size in bytes.

        ``pages`` is the guest's max_pfn; by default the tree ends at its last valid entry. Raises
        AbsentError (MemoryFault) if the top of the tree cannot be read.
        """
    @staticmethod
    def linear(
        dump: Dump,
        virtual: AddressSpace,
        address: int,
        word: WordSize,
        pages: int,
        source: Literal["linear", "cr3"] = "linear",
    ) -> P2M:
        """Opens the array of ``pages`` entries at ``address`` in the address space ``virtual``.

        ``source`` is ``linear`` for an array that the guest publishes, ``cr3`` for its kernel's
        own. Raises TypeError unless ``virtual`` is a virtual address space, AbsentError if the
        array cannot be used.
        """
    @staticmethod
    def pvops_tree(
        dump: Dump,
        virtual: AddressSpace,
        top: int,
        levels: Literal[2, 3],
        word: WordSize,
        pages: int,
    ) -> P2M:
        """Opens the P2M tree of a pvops kernel.

        ``top`` is the virtual address of the top array: the symbol ``p2m_top`` itself with 2
        levels, what it points to with 3. ``pages`` is the number of pfns. Raises AbsentError if the
        tree cannot be used.
        """
    @staticmethod
    def dump_core(dump: Dump) -> P2M:
        """Opens the (pfn, mfn) pairs of an xl dump-core file.

        Raises AbsentError if the file has none: it is a vmcore, or of a translated guest.
        """
    @staticmethod
    def nested(dump: Dump, mfn: int, layout: NestedFormat) -> P2M:
        """Opens Xen's page tables of a translated guest (HVM, PVH), whose top page is ``mfn``.

        ``layout`` is ``npt`` (AMD, and the P2M of shadow paging) or ``ept`` (Intel). Raises
        AbsentError if the page is not in the dump or nothing is mapped.
        """
    @property
    def nested_format(self) -> NestedFormat | None:
        """The layout of its page tables; None for the P2M of a PV guest."""
    def tables(self, limit: int) -> list[int]:
        """Returns the mfns of its page tables that can be read, at most ``limit``."""
    def walk(self, pfn: int) -> tuple[list[tuple[int, int, int, int]], str | None]:
        """Returns the entries that a walk of its page tables reads, and Xen's type of the page.

        The entries are as in ``Mapping.levels``, with machine addresses. The type is Xen's name
        (``ram_rw``, ``mmio_direct``, ...); None if there is no page.
        """
    @property
    def source(self) -> P2MSource:
        """Which constructor made it; ``cr3`` for a linear array of that source."""
    @property
    def pages(self) -> int:
        """Number of pfns."""
    @property
    def word(self) -> WordSize:
        """The guest's word size in bytes."""
    def entry(self, pfn: int) -> P2MEntry:
        """Returns the kind of a pfn's entry, and its mfn or None. Never raises MemoryFault."""
    @overload
    def resolve(self, pfn: Scalar) -> int:
        """Returns the mfn of a pfn, or of each pfn in an array.

        An int gives an int, an array a uint64 array of the same length. A pfn whose entry is not a
        frame of the domain raises MemoryFault. With ``status``, which then holds the reasons, the
        result is 2**64 - 1 for it.
        """
    @overload
    def resolve(
        self,
        pfn: Integers,
        *,
        out: AnyArray | None = None,
        status: AnyArray | None = None,
        threads: int | None = None,
    ) -> NDArray[np.uint64]: ...
    @overload
    def reverse(self, mfn: Scalar) -> int:
        """Returns the lowest pfn of an mfn, or of each mfn in an array.

        The first call reads the whole P2M. Results are as in ``resolve``, but an mfn that no pfn
        has raises AbsentError.
        """
    @overload
    def reverse(
        self,
        mfn: Integers,
        *,
        out: AnyArray | None = None,
        status: AnyArray | None = None,
        threads: int | None = None,
    ) -> NDArray[np.uint64]: ...
    def held(self) -> bytes:
        """The runs of pfns whose pages the dump holds as a whole, ascending.

        Two 64-bit numbers each: the first pfn and the count. Raises MemoryError if there are too
        many.
        """
    def spans(self) -> list[tuple[int, int]]:
        """Returns ascending ``(first pfn, count)`` ranges whose P2M page is in the dump.

        Each page of the P2M counts once, however often the tree refers to it. Its entries may be of
        any kind; ``kinds`` distinguishes them.
        """
    def kinds(
        self, first: int = 0, end: int | None = None, *, limit: int = 65536
    ) -> tuple[list[tuple[int, int, P2MKind]], int | None]:
        """Returns runs of pfns whose entries are of one kind, and the pfn to continue from.

        Runs are ``(first pfn, count, kind)``, ascending and without gaps, from pfn ``first`` to
        before ``end``, at most ``limit`` of them (and at most 2**22). The second result is None if
        all pfns were reached.
        """
    def compare(self, other: P2M, limit: int = 100) -> P2MComparison:
        """Compares every pfn with another P2M of the same domain.

        ``limit`` is the maximum number of differences listed in ``first``.
        """

@final
class P2MComparison:
    """The result of comparing two P2Ms, as numbers of pfns."""

    @property
    def equal(self) -> int:
        """Same entry in both."""
    @property
    def hidden_identity(self) -> int:
        """Identity in one, invalid in the other.

        Pvops kernels hide identity pages from the frame-list tree.
        """
    @property
    def past_end(self) -> int:
        """Past the end of one of them."""
    @property
    def unreadable(self) -> int:
        """Unreadable in one of them, or beyond the limit on compared pages."""
    @property
    def different(self) -> int:
        """Different entries."""
    @property
    def first(self) -> list[tuple[int, P2MEntry, P2MEntry]]:
        """``(pfn, entry, other entry)`` of the first unreadable or different pfns, ascending."""

def head(path: StrPath, size: int) -> bytes:
    """Returns the first ``size`` bytes of a file, or of what it holds if it is compressed.

    At most 64 KiB. Raises OSError if it cannot be read.
    """

@final
class Image:
    """The image of a kernel or hypervisor: a file, or a kernel's own memory."""

    def __new__(cls, path: StrPath) -> Image:
        """Opens the file at ``path``: an ELF file, a compressed one, or the kernel in a vmlinuz.

        Raises OSError if it cannot be opened or unpacked, DumpError if it is none of them, or
        corrupt.
        """
    @staticmethod
    def from_map(path: StrPath) -> Image:
        """The kernel that the System.map at ``path`` is of: symbols alone.

        Raises OSError if it cannot be opened, DumpError if it is not a map.
        """
    def with_memory(self, memory: AddressSpace, slide: int) -> Image:
        """An image of a map, with the types and unwind tables in the kernel's ``memory``.

        KASLR moved the kernel by ``slide`` bytes. A file is returned as it is.
        """
    def set_debug(self, debug: Image) -> None:
        """Takes symbols and sections that this file lacks from ``debug``, of the same build.

        Only the first one is used, and only for what was not read before.
        """
    @property
    def debug_path(self) -> str | None:
        """Path of the file that was given to ``set_debug``; None without one."""
    @property
    def symbol_source(self) -> SymbolSource:
        """Where its symbols are from; ``kallsyms`` is the kernel's own table."""
    @staticmethod
    def in_memory(
        memory: AddressSpace,
        word: WordSize,
        name: str,
        ranges: Sequence[tuple[int, int]],
        token_table: int | None = None,
    ) -> Image:
        """The image of the Linux kernel that runs in ``memory``.

        Its symbols (kallsyms), types (BTF) and unwind tables (ORC) are read from memory. ``name``
        is what messages call it, ``ranges`` are the first and last addresses where it may be, and
        ``token_table`` is the address of ``kallsyms_token_table`` if it is known. Raises
        AbsentError if the symbols are not found.
        """
    def unmoved(self, slide: int) -> Image:
        """The image in memory at the addresses of a kernel that KASLR moved by ``slide``."""
    def with_variables(self, variables: Sequence[tuple[str, int]]) -> Image:
        """The image in memory with further variables, unless it has symbols of their names.

        Names and addresses, where the kernel runs. A file is returned as it is.
        """
    @property
    def path(self) -> str:
        """Path of the file, as given; of a kernel's memory, what messages call it."""
    @property
    def is_memory(self) -> bool:
        """Whether it is a kernel's memory, not a file."""
    @property
    def losses(self) -> list[str]:
        """What the dump lacks of an image in memory, as far as it was used."""
    @property
    def build_id(self) -> str | None:
        """The build id in hex; None if the file has none."""
    @property
    def machine_type(self) -> int:
        """``e_machine`` of the ELF header: 3 is EM_386, 62 is EM_X86_64."""
    @property
    def word(self) -> WordSize:
        """Word size in bytes."""
    def sections(self) -> list[tuple[str, int, int, int]]:
        """``(name, link-time address, offset in the file, size in memory)`` of each section."""
    def section(self, name: str) -> bytes:
        """Returns the contents of a section, decompressed if necessary.

        Raises AbsentError if there is no such section or it has no contents.
        """
    def read(self, address: int, size: int) -> bytes:
        """Returns ``size`` bytes at a link-time address.

        Raises AbsentError if the file does not contain them.
        """
    def symbols(self, slide: int = 0) -> Symbols:
        """Returns the symbols, moved up by ``slide`` bytes (the KASLR offset).

        Raises AbsentError if the file has no symbol table.
        """
    def source_lines(self, slide: int = 0) -> SourceLines:
        """Returns the source lines of the code, moved up by ``slide`` bytes (the KASLR offset).

        Raises AbsentError if the file has no DWARF.
        """
    def types(self, cache: StrPath | None = None) -> Types:
        """Returns the struct layouts from BTF, else from DWARF.

        ``cache`` is the directory for indices of DWARF; None is the user's cache directory. Raises
        AbsentError if the file has neither that can be used.
        """
    def types_from_btf(self, data: bytes) -> Types:
        """Returns the struct layouts of BTF that the file does not have.

        ``data`` is the kernel's memory from ``__start_BTF`` to ``__stop_BTF``. Raises AbsentError
        if it cannot be read to its end.
        """

@final
class SourceLines:
    """The source lines of an image's code, from DWARF."""

    @property
    def is_incomplete(self) -> bool:
        """Whether parts of the line tables were not read: they are damaged or exceed limits."""
    def find(self, addresses: Sequence[int]) -> list[tuple[str, int] | None]:
        """Returns the file and the line of the code at each address.

        They are those of the innermost inlined function. None stands for an address that has no
        code, or code of no line.
        """

@final
class Symbol:
    """One symbol."""

    @property
    def name(self) -> str:
        """Its name."""
    @property
    def address(self) -> int:
        """Its address, including the slide."""
    @property
    def size(self) -> int:
        """Its size in bytes; 0 if unknown."""
    @property
    def kind(self) -> SymbolKind:
        """What it names."""
    @property
    def binding(self) -> SymbolBinding:
        """Its binding."""
    @property
    def letter(self) -> str:
        """The letter of its section as nm shows it, upper case if global; ``?`` if unknown."""
    @property
    def module(self) -> str | None:
        """The module that defines it; None for the kernel or hypervisor itself."""
    def __hash__(self) -> int:
        """Hash of all members; equal symbols are equal in all of them."""

@final
class SymbolTable:
    """Symbols as columns of equal length: for 200,000 symbols faster than as objects."""

    @property
    def names(self) -> list[str]:
        """Their names."""
    @property
    def addresses(self) -> NDArray[np.uint64]:
        """Their addresses, including the slide."""
    @property
    def sizes(self) -> NDArray[np.uint64]:
        """Their sizes in bytes; 0 if unknown."""
    @property
    def kinds(self) -> list[SymbolKind]:
        """What they name."""
    @property
    def bindings(self) -> list[SymbolBinding]:
        """Their bindings."""
    @property
    def modules(self) -> list[str | None]:
        """The modules that define them; None for the kernel or hypervisor itself."""
    def __len__(self) -> int:
        """Number of symbols."""

@final
class SymbolIterator:
    """An iterator over symbols, each of which is made when it is asked for."""

    def __iter__(self) -> SymbolIterator:
        """Returns itself."""
    def __next__(self) -> Symbol:
        """Returns the next symbol. Raises StopIteration."""

@final
class Symbols:
    """Symbols of an image and its modules, by name and by address."""

    @property
    def slide(self) -> int:
        """Distance in bytes between run-time and link-time addresses."""
    @staticmethod
    def from_map(path: StrPath) -> Symbols:
        """Reads a System.map or xen-syms.map file.

        Raises OSError if it cannot be opened, DumpError if it is not a map file.
        """
    def __len__(self) -> int:
        """Number of symbols."""
    def __iter__(self) -> SymbolIterator:
        """Iterates over the symbols: by address, then those of each module by address.

        Modules that are added during the iteration are not included.
        """
    def table(self) -> SymbolTable:
        """Returns all symbols as columns, in the order of the iterator."""
    def __contains__(self, name: str, /) -> bool:
        """Whether there is a symbol of this name."""
    def __getitem__(self, name: str, /) -> int:
        """Returns the address of a symbol, as ``get`` does. Raises KeyError."""
    def get(self, name: str) -> int | None:
        """Returns the address of a symbol, or None.

        Of several of one name, a global one is preferred, then the lowest.
        """
    def all(self, name: str) -> list[Symbol]:
        """Returns all symbols of this name in ascending order, at most 4096."""
    def lookup(self, address: int) -> Symbol | None:
        """Returns the symbol whose size covers ``address``, else the nearest below; or None."""
    def nearest(self, address: int) -> Symbol | None:
        """Returns the nearest symbol at or below ``address``, as crash does; or None."""
    def add_module(self, name: str, start: int, end: int, symtab: bytes, strtab: bytes) -> None:
        """Adds the symbols of a loaded module from ``start`` up to but excluding ``end``.

        ``symtab`` is an array of Elf32_Sym or Elf64_Sym with absolute values, ``strtab`` its
        strings, both as ``struct module`` keeps them.
        """

@final
class Member:
    """One member of a struct or union."""

    @property
    def offset(self) -> int:
        """Offset in bytes from the start of the outermost struct."""
    @property
    def size(self) -> int:
        """Size in bytes; for a bit-field, of the bytes at ``offset`` that hold it."""
    @property
    def bit_offset(self) -> int | None:
        """Lowest bit of a bit-field within those bytes; else None."""
    @property
    def bit_size(self) -> int | None:
        """Width of a bit-field in bits; else None."""
    @property
    def type_name(self) -> str:
        """Its type in C notation."""
    @property
    def kind(
        self,
    ) -> Literal["int", "float", "ptr", "struct", "union", "array", "enum", "func", "void"]:
        """Its kind of type, without typedefs and qualifiers."""
    @property
    def count(self) -> int | None:
        """Number of elements of an array, all dimensions multiplied; else None."""
    @property
    def signed(self) -> bool:
        """True for a signed number, or an array of such."""

@final
class TypeMember:
    """A member of a struct or union, which may be an anonymous struct or union."""

    @property
    def name(self) -> str:
        """Its name; empty for an anonymous one."""
    @property
    def type(self) -> Type:
        """Its type."""
    @property
    def type_number(self) -> int:
        """The number of its type."""
    @property
    def bit_offset(self) -> int:
        """Bits from the start of the struct."""
    @property
    def bit_size(self) -> int | None:
        """Width of a bit-field in bits; else None."""
    @property
    def offset(self) -> int:
        """Bytes from the start of the struct; of a bit-field, to the byte with its lowest bit."""

@final
class Type:
    """One type. ``str(type)`` is how C writes it.

    Equal types have the same number and are from the same ``Types``. Types may form cycles: what
    follows them must visit each once, as ``TypeGraph.reachable`` does, or limit its depth. A type
    that cannot be read, or has too many parts, raises AbsentError.
    """

    @property
    def number(self) -> int:
        """Its number: the ID of BTF; for DWARF the offset in ``.debug_info``.

        Dimensions of an array in DWARF but the first have a number above that.
        """
    @property
    def kind(self) -> TypeKind:
        """Its kind."""
    @property
    def name(self) -> str:
        """Its name without a keyword; empty if it has none."""
    @property
    def keyword(self) -> Literal["struct", "union", "enum"] | None:
        """The keyword of these kinds and of what ``fwd`` declares; else None."""
    @property
    def size(self) -> int | None:
        """Its own size in bytes; None if it has none, or if it is that of another type."""
    @property
    def signed(self) -> bool:
        """Whether it is a signed number, or an enum with signed values."""
    @property
    def encoding(self) -> Literal["int", "char", "bool", "float", "complex"] | None:
        """What the bits of a number mean; None for other kinds. BTF may call ``char`` an int."""
    @property
    def count(self) -> int | None:
        """Number of elements of an array; 0 if its extent is not known. Else None."""
    @property
    def target_number(self) -> int | None:
        """The number of ``target``."""
    @property
    def target(self) -> Type | None:
        """The type that it refers to; None is ``void``, or that its kind refers to none.

        That is a pointer's target, the elements of an array, what a typedef or qualifier is for,
        the type of a variable, the prototype of a function, the result of a prototype.
        """
    @property
    def members(self) -> list[TypeMember]:
        """The members of a struct or union as declared; empty for other kinds."""
    @property
    def enumerators(self) -> list[tuple[str, int]]:
        """The enumerators of an enum with their values; empty for other kinds."""
    @property
    def parameters(self) -> list[tuple[str, Type | None]]:
        """Names, which may be empty, and types of a prototype's parameters."""
    @property
    def variadic(self) -> bool:
        """Whether a prototype has ``...`` after its parameters."""
    @property
    def variables(self) -> list[tuple[Type, int, int]]:
        """Variables of a ``datasec`` with offset and size in bytes; empty for other kinds."""
    def sizeof(self) -> int | None:
        """Returns its size in bytes, also of a typedef or an array; None if it has none."""
    def stripped(self) -> Type | None:
        """Returns the type without typedefs and qualifiers; None is ``void``."""
    def completed(self) -> Type:
        """Returns the definition of what ``fwd`` declares, if there is one; else itself."""
    def __hash__(self) -> int:
        """Hash of its number."""

@final
class TypeIterator:
    """An iterator over types, each of which is made when it is asked for."""

    def __iter__(self) -> TypeIterator:
        """Returns itself."""
    def __next__(self) -> Type:
        """Returns the next type. Raises StopIteration."""

@final
class TypeGraph:
    """Types one by one, each with the types that it refers to."""

    def __len__(self) -> int:
        """Number of types that the iterator yields."""
    def __iter__(self) -> TypeIterator:
        """Iterates over the types.

        BTF: all, by number, those of the kernel before those of a module. DWARF: each named struct,
        union, enum and typedef once; others are reached from these.
        """
    def __getitem__(self, number: int, /) -> Type:
        """Returns the type with this number; 0 is ``void`` in BTF. Raises KeyError."""
    def __contains__(self, name: str, /) -> bool:
        """Whether ``find`` finds a type of this name."""
    def find(self, name: str) -> Type:
        """Returns a type by name: ``struct file``, ``file``, ``u32``, ``unsigned long``.

        Without a keyword, a struct comes before a union, a typedef, an enum and a base type.
        Raises AbsentError.
        """
    def variable(self, name: str) -> Type:
        """Returns the type of a global variable. Raises AbsentError.

        BTF describes per-CPU variables only; DWARF is not searched for variables.
        """
    def reachable(self, types: Sequence[Type]) -> TypeIterator:
        """Iterates over these types, which must be of this graph, and all reached from them.

        Each type is visited once. Raises AbsentError if there are too many.
        """

@final
class Types:
    """Layouts of structs.

    A path is a struct and a chain of members: ``task_struct.se.exec_start``. Anonymous members are
    left out of it. Whatever the file does not describe raises AbsentError.
    """

    @property
    def source(self) -> Literal["BTF", "DWARF"]:
        """Where the layouts come from."""
    @property
    def warnings(self) -> list[str]:
        """What could not be read so far, and what is unknown but was verified."""
    @property
    def word(self) -> WordSize:
        """Size of a pointer in bytes."""
    @property
    def graph(self) -> TypeGraph:
        """The types one by one, each with the types that it refers to."""
    def split(self, data: bytes) -> Types:
        """Returns the types of a module by its BTF, with those of its kernel, which are ``self``.

        Numbers of types and offsets of strings in it continue those of the kernel's BTF. All its
        types are verified. Raises AbsentError if they do not fit, or if ``self`` is not BTF of a
        kernel.
        """
    def __contains__(self, struct: str, /) -> bool:
        """Whether the file describes this struct."""
    def sizeof(self, struct: str) -> int:
        """Returns the size of a type in bytes. Raises AbsentError."""
    def variable(self, name: str) -> str:
        """Returns the type of a global variable as C writes it: ``struct rq``. Raises AbsentError.

        BTF describes per-CPU variables only; DWARF is not searched for variables.
        """
    def member(self, path: str) -> Member:
        """Returns a member by its path. Raises AbsentError."""
    def members(self, struct: str) -> dict[str, Member]:
        """Returns the members of a struct or union by name, including those of anonymous members.

        Raises AbsentError.
        """
    def offset(self, path: str) -> int:
        """Returns the offset of a member in bytes, by its path. Raises AbsentError."""
    def enum(self, name: str) -> dict[str, int]:
        """Returns the enumerators of an enum: name to value. Raises AbsentError."""
    def enumerator(self, name: str) -> int:
        """Returns the value of an enumerator of any enum. Raises AbsentError."""

@final
class Unwinder:
    """Unwinds the stacks of one kernel, or of Xen."""

    def __new__(
        cls,
        image: Image | None,
        symbols: Symbols,
        memory: AddressSpace,
        *,
        types: Types | None = None,
        version: str = "",
        methods: Sequence[str] | None = None,
    ) -> Unwinder:
        """Prepares an unwinder.

        ``image`` is None if only symbols are known, from a map file; there are no unwind tables
        then. ``version`` is the release of a Linux kernel, empty for Xen. ``methods`` limits the
        unwinder to some of ``orc``, ``cfi``, ``fp`` and ``scan``; their order does not matter.
        Raises ValueError for an unknown method, TypeError unless ``memory`` is a virtual address
        space.
        """
    @property
    def methods(self) -> list[str]:
        """The methods in use, the most reliable first."""
    @property
    def warnings(self) -> list[str]:
        """Deduplicated warnings about the unwind tables."""
    def add_text(self, start: int, end: int) -> None:
        """Adds the code of a module, from ``start`` to ``end``."""
    def add_orc(self, start: int, end: int, orc_ip: bytes, orc_ip_address: int, orc: bytes) -> None:
        """Adds the ORC tables of the module at ``start`` to ``end``.

        ``orc_ip`` and ``orc`` are the contents of its sections ``.orc_unwind_ip`` and
        ``.orc_unwind``, ``orc_ip_address`` the address of the first.
        """
    def unwind(
        self,
        registers: dict[str, int],
        *,
        stacks: Sequence[tuple[int, int]] = ...,
        exact: bool = False,
        slot: int | None = None,
        limit: int = 256,
    ) -> Backtrace:
        """Unwinds one stack from the registers of its innermost frame.

        ``registers`` maps names to values; the program counter and the stack pointer are required.
        ``stacks`` are known stacks as (lowest address, end). ``exact`` says that the program
        counter is where execution stopped, not a return address. ``slot`` is the address of the
        innermost return address, if it is not just below the stack pointer. ``limit`` is the
        maximum number of frames. Memory that is missing ends the backtrace, it does not raise.
        """

@final
class Backtrace:
    """The frames of one stack."""

    @property
    def frames(self) -> list[Frame]:
        """The frames, innermost first."""
    @property
    def stopped(self) -> str | None:
        """Why the backtrace is incomplete; None if it reached the end of the stack."""

@final
class Frame:
    """One frame of a stack, of a kernel or of Xen."""

    def __new__(cls, registers: dict[str, int], how: str, *, user: bool = False) -> Frame:
        """Makes a frame without symbols: where execution stopped by these registers.

        Raises KeyError if the program counter or the stack pointer is not among them.
        """
    @property
    def pc(self) -> int:
        """The return address, or where execution stopped if ``interrupted``."""
    @property
    def sp(self) -> int:
        """The stack pointer in this frame: above the return address of the function it called."""
    @property
    def slot(self) -> int:
        """Address of the return address, which crash prints in brackets.

        For a task that was not running, the saved stack pointer if the switch pushed no return
        address (before 4.9).
        """
    @property
    def symbol(self) -> str | None:
        """The symbol whose size covers ``pc``, else the nearest below; None outside all text."""
    @property
    def offset(self) -> int:
        """Distance of ``pc`` from the symbol in bytes."""
    @property
    def size(self) -> int:
        """Size of the symbol in bytes; 0 if unknown."""
    @property
    def label(self) -> str | None:
        """The nearest symbol below ``pc``, as crash names it; may be a label inside ``symbol``."""
    @property
    def module(self) -> str | None:
        """The module of the symbol; None for the kernel or hypervisor itself."""
    @property
    def how(self) -> str:
        """The method that found it: ``start``, ``orc``, ``cfi``, ``fp``, ``scan``, ..."""
    @property
    def guess(self) -> bool:
        """True if the frame is unreliable: found by likelihood, not by unwind data."""
    @property
    def interrupted(self) -> bool:
        """True if ``pc`` is the instruction that was interrupted."""
    @property
    def user(self) -> bool:
        """True for user space, or for Xen's guest; always the last frame."""
    @property
    def registers(self) -> dict[str, int] | None:
        """The registers at this frame by name; None unless all were saved."""
    @property
    def registers_at(self) -> int | None:
        """Address of the saved registers on the stack; None if there are none."""
    def __eq__(self, other: object, /) -> bool:
        """Whether all members are equal."""
