"""Xen's frame table: one page_info for each machine frame, which names the domain that owns it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import compress, islice

from .._native import Dump
from .._typing import TYPE_CHECKING, Any, NamedTuple
from ..limits import (
    MAX_BLOCK_ENTRIES,
    MAX_COUNTED_DOMAINS,
    MAX_DIRECT_MAP_STARTS,
    MAX_ENTRIES_AT_ONCE,
    MAX_MACHINE_FRAMES,
    MAX_SAMPLED_BLOCKS,
)
from . import compat
from .memory import PAGE, XenMemory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .._native import FrameTable

#: The low bits of count_info count references; a page with an owner has at least one.
COUNT_MASK = (1 << compat.value("bits of the reference count")) - 1
#: Parts of the table that are read before their pages are unmapped again: 64 MiB.
_UNRELEASED = 128
#: Relative error of an estimated number of pages: a domain's pages are in clusters.
_TOLERANCE = 0.25
#: The same of all domains together, of which each has a few blocks of the sample: squares of the
#: deviations by variance, and the number of domains for which that is significant.
_DISPERSION, _FEWEST_DOMAINS = 2.5, 16


class Table(NamedTuple):
    """The frame table according to VMCOREINFO_XEN."""

    #: Addresses of the variables that hold its address and the number of frames.
    table_at: int
    max_page_at: int
    #: Size of a page_info, offsets of its _domain and count_info.
    size: int
    owner: int
    references: int

    @classmethod
    def of(cls, *facts: int | None) -> "Table | None":
        """None if a fact is missing or impossible."""
        if any(fact is None for fact in facts):
            return None
        table = cls(*(fact or 0 for fact in facts))
        inside = 0 <= table.owner < table.size and 0 <= table.references < table.size
        aligned = not (table.size | table.owner | table.references) & 3
        return table if 8 <= table.size <= 256 and inside and aligned else None


def max_page(memory: XenMemory, table: Table | None) -> int | None:
    """One more than the highest machine frame number."""
    found = memory.pointer(table.max_page_at) if table else None
    return found if found and found < MAX_MACHINE_FRAMES else None


def for_types(memory: XenMemory, table: Table | None) -> "FrameTable | None":
    """The table for a search by the types of frames; None if it is not known."""
    frames = max_page(memory, table)
    base = None if table is None else memory.pointer(table.table_at)
    if table is None or not frames or not base:
        return None
    # type_info is the word after count_info, and what it holds is compared with page tables.
    at = table.references + memory.word
    if at + memory.word > table.size:
        return None
    return memory.virtual, base, frames, table.size, at, memory.word


def owners(memory: XenMemory, table: Table | None, starts: Iterable[int]) -> dict[int, int]:
    """The estimated number of pages that each struct domain owns, by its address.

    _domain holds the frame number of a struct domain, which is in Xen's direct map. Any address in
    the direct map gives its start; ``starts`` should have some.
    """
    frames = max_page(memory, table)
    if table is None or frames is None:
        return {}
    counted = Counter(start - at for start in starts if start and (at := memory.translate(start)))
    bases = [base for base, _ in counted.most_common()[:MAX_DIRECT_MAP_STARTS]]
    counts: Counter[int] = Counter()
    sampled = 0
    blocks = frames // MAX_SAMPLED_BLOCKS // MAX_BLOCK_ENTRIES
    for start in range(0, frames, max(1, blocks) * MAX_BLOCK_ENTRIES):
        size = min(MAX_BLOCK_ENTRIES, frames - start)
        sampled += size
        counts.update(_owners_of(memory, table, start, size))
    counts.pop(0, None)
    found = {}
    for frame, count in counts.items():
        for base in bases:
            address = base + frame * PAGE
            if memory.is_xen(address) and memory.translate(address) == frame * PAGE:
                found[address] = count * frames // sampled
                break
    return found


def frames_of(
    memory: XenMemory, table: Table | None, domains: Collection[int], limit: int
) -> dict[int, "np.ndarray[Any, Any]"]:
    """The runs of machine frames that each of some struct domains owns, by its address.

    Arrays of shape (runs, 2) and type uint64, ascending: first frame, count. The table is read
    until each domain has ``limit`` frames.
    """
    import numpy as np

    frames = max_page(memory, table)
    if table is None or frames is None:
        return {}
    own = {a: at // PAGE for a in domains if (at := memory.translate(a)) is not None}
    # _domain has 32 bits, and is 0 where there is none.
    own = {address: frame for address, frame in own.items() if 0 < frame < 1 << 32}
    wanted = np.array(sorted(set(own.values())), dtype=np.uint32)
    lacking = np.full(len(wanted), limit, dtype=np.int64)
    parts = [np.empty((0, 3), dtype=np.uint64)]
    for number, (base, count) in enumerate(_held(memory.dump, frames)):
        if number % _UNRELEASED == _UNRELEASED - 1:
            memory.dump.release()
        numbers = np.frombuffer(_page_infos(memory, table, base, count), dtype="<u4")
        numbers = numbers.reshape(-1, table.size // 4)
        used = numbers[:, table.references // 4] & COUNT_MASK
        owner = np.where(used != 0, numbers[:, table.owner // 4], 0)
        # The starts of the runs, and the end of the last one.
        edges = np.flatnonzero(np.diff(owner, prepend=~owner[:1], append=~owner[-1:]))
        starts, ends = edges[:-1], edges[1:]
        kept = np.isin(owner[starts], wanted)
        owner, starts, sizes = owner[starts][kept], starts[kept], (ends - starts)[kept]
        rows = (owner, base + starts, sizes)
        parts.append(np.stack([row.astype(np.uint64) for row in rows], axis=1))
        np.subtract.at(lacking, np.searchsorted(wanted, owner), sizes)
        if (lacking <= 0).all():
            break
    runs = np.concatenate(parts)
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    frames_own = np.fromiter(own.values(), dtype=np.uint64, count=len(own))
    first = np.searchsorted(runs[:, 0], frames_own)
    last = np.searchsorted(runs[:, 0], frames_own, side="right")
    return {
        address: runs[start:end, 1:] for address, start, end in zip(own, first, last, strict=True)
    }


def owners_of(
    memory: XenMemory, table: Table | None, mfns: "NDArray[np.uint64]"
) -> "NDArray[np.int64] | None":
    """For each machine frame the frame of its owner's struct domain; 0 without an owner, -1 if its
    page_info cannot be read. None if there is no table.
    """
    import numpy as np

    infos = page_infos(memory, table, mfns)
    if table is None or infos is None:
        return None
    rows, is_read = infos
    numbers = rows.view("<u4").reshape(len(mfns), -1)
    used = numbers[:, table.references // 4] & np.uint32(COUNT_MASK)
    found = np.where(used != 0, numbers[:, table.owner // 4], 0).astype(np.int64)
    found[~is_read] = -1
    return found


def page_infos(
    memory: XenMemory, table: Table | None, mfns: "NDArray[np.uint64]"
) -> "tuple[NDArray[np.uint8], NDArray[np.bool]] | None":
    """The page_info of each machine frame, and whether it could be read; None without a table."""
    import numpy as np

    base = None if table is None else memory.pointer(table.table_at)
    if table is None or not base:
        return None
    memory.charge(len(mfns) * table.size)
    status = np.empty(len(mfns), np.uint8)
    # Sums of numbers from the dump wrap: what they lead to is verified.
    addresses = np.uint64(base) + mfns * np.uint64(table.size)
    infos = memory.virtual.read_many(addresses, table.size, status=status)
    return np.ascontiguousarray(infos), status == 0


def _held(dump: Dump, frames: int) -> Iterator[tuple[int, int]]:
    """Runs of those of the first ``frames`` frames that the dump holds, in pieces.

    max_page may be overwritten, and program headers can map the same bytes of the file to any
    number of addresses. The runs have no more frames than the dump holds.
    """
    at, remaining = 0, dump.memory_held // PAGE + 1
    for held in dump.machine.iter_mapped():
        at = max(at, held.address // PAGE)
        end = min(frames, -(-(held.address + held.size) // PAGE), at + remaining)
        if at >= frames or not remaining:
            break
        while at < end:
            count = min(MAX_ENTRIES_AT_ONCE, end - at)
            yield at, count
            at += count
            remaining -= count


def _page_infos(memory: XenMemory, table: Table, start: int, count: int) -> bytes:
    """``count`` page_infos; empty if they cannot be read."""
    base = memory.pointer(table.table_at)
    data = memory.read(base + start * table.size, count * table.size) if base else None
    return data or b""


def _owners_of(memory: XenMemory, table: Table, start: int, count: int) -> Iterator[int]:
    """_domain of those of ``count`` page_infos that are in use; 0 where there is none."""
    # Every 4 bytes one number: the low half of count_info counts, _domain has 32 bits.
    numbers = memoryview(_page_infos(memory, table, start, count)).cast("I")
    step = table.size // 4
    used = numbers[table.references // 4 :: step].tolist()
    return compress(numbers[table.owner // 4 :: step].tolist(), map(COUNT_MASK.__and__, used))


def pages_offset(
    memory: XenMemory,
    table: Table | None,
    domains: Collection[int],
    size: int,
    owned: Mapping[int, int],
) -> int | None:
    """The offset of domain.tot_pages in the struct ``domains``, of ``size`` bytes each.

    In every domain it is close to the estimate of ``owners``. So is max_pages, which is never less
    and at an offset nearby.
    """
    owning = (address for address in domains if owned.get(address, 0) >= MAX_BLOCK_ENTRIES)
    largest = sorted(owning, key=lambda address: -owned[address])[:MAX_COUNTED_DOMAINS]
    # Without numpy, whose import takes longer than this.
    known = _structs(memory, largest, size)
    if not known:
        return None
    rows = {address: memoryview(data).cast("I") for address, data in known.items()}
    error = dict.fromkeys(range(min(map(len, rows.values()))), 0.0)
    for address, row in rows.items():
        estimate = owned[address]
        errors = ((i, max(worst, abs(row[i] / estimate - 1))) for i, worst in error.items())
        error = {i: worst for i, worst in errors if worst <= _TOLERANCE}
    total: dict[int, float] = {i: sum(row[i] for row in rows.values()) for i in error}
    if not error:
        error, total = _by_sample(memory, table, domains, size, owned)
    if not error:
        return None
    best = min(error, key=lambda i: error[i])
    near = (i for i in error if abs(i - best) <= 8)
    return 4 * min(near, key=lambda i: (total[i], i))


def _structs(memory: XenMemory, domains: Iterable[int], size: int) -> dict[int, bytes]:
    """The structs that can be read, all of one length: a multiple of 4."""
    structs = {a: data for a in domains if (data := memory.struct(a, size))}
    length = min(map(len, structs.values()), default=0) // 4 * 4
    return {address: data[:length] for address, data in structs.items()}


def _by_sample(
    memory: XenMemory,
    table: Table | None,
    domains: Iterable[int],
    size: int,
    owned: Mapping[int, int],
) -> tuple[dict[int, float], dict[int, float]]:
    """How the numbers at each offset that fit the sample differ from it, and their sums.

    On a host with many domains each has a few blocks of the sample. Their number has a Poisson
    distribution: its variance is the number that is expected.
    """
    import numpy as np

    known = _structs(memory, islice(domains, MAX_COUNTED_DOMAINS), size)
    length = min(map(len, known.values()), default=0) // 4
    rows = [np.frombuffer(data, "<u4") for data in known.values()]
    pages = np.array(rows, np.float64).reshape(len(known), length)
    frames = max_page(memory, table)
    # Pages that one sampled block represents.
    block = max(MAX_BLOCK_ENTRIES, (frames or 0) / MAX_SAMPLED_BLOCKS)
    seen = np.array([owned.get(address, 0) for address in known], np.float64)[:, None] / block
    expected = pages / block
    error = ((seen - expected) ** 2 / (expected + 1)).sum(axis=0) / max(1, len(known))
    total = np.abs(expected.sum(axis=0) / max(1, seen.sum()) - 1)
    fits = (error <= _DISPERSION) & (total <= _TOLERANCE) & (len(known) >= _FEWEST_DOMAINS)
    offsets = np.flatnonzero(fits).tolist()
    return {i: float(error[i]) for i in offsets}, {i: float(pages[:, i].sum()) for i in offsets}
