"""Xen's frame table: one page_info for each machine frame, which names the domain that owns it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from .._native import Dump
from .memory import PAGE, XenMemory

#: count_info: references are counted in the low bits; a page that is owned has one at least.
_COUNT_MASK = (1 << 26) - 1
#: As many blocks of the table are looked at, and as many page_infos in each.
_BLOCKS, _IN_BLOCK = 512, 64
#: As many page_infos are read at once where all are wanted.
_AT_ONCE = 1 << 14
#: An estimate may be off by as much: a domain's pages come in clusters.
_TOLERANCE = 0.25


class Table(NamedTuple):
    """What VMCOREINFO_XEN says of the frame table."""

    #: Addresses of the variables that hold its address and the number of frames.
    table_at: int
    max_page_at: int
    #: Size of a page_info, offsets of its _domain and count_info.
    size: int
    owner: int
    references: int

    @classmethod
    def of(cls, *facts: int | None) -> "Table | None":
        """None where a fact is missing or cannot be."""
        if any(fact is None for fact in facts):
            return None
        table = cls(*(fact or 0 for fact in facts))
        inside = 0 <= table.owner < table.size and 0 <= table.references < table.size
        aligned = not (table.size | table.owner | table.references) & 3
        return table if 8 <= table.size <= 256 and inside and aligned else None


def max_page(memory: XenMemory, table: Table | None) -> int | None:
    """One more than the highest machine frame number."""
    found = memory.pointer(table.max_page_at) if table else None
    return found if found and found < 1 << 40 else None


def owners(memory: XenMemory, table: Table | None, starts: Iterable[int]) -> dict[int, int]:
    """About how many pages each struct domain owns, by its address.

    _domain holds the frame number of a struct domain, and that lies in Xen's direct map; where the
    map starts is learnt from any address in it, and ``starts`` should have some.
    """
    frames = max_page(memory, table)
    if table is None or frames is None:
        return {}
    bases = {start - at for start in starts if start and (at := memory.translate(start))}
    counts: Counter[int] = Counter()
    asked = 0
    step = max(_IN_BLOCK, frames // _BLOCKS // _IN_BLOCK * _IN_BLOCK)
    for start in range(0, frames, step):
        asked += min(_IN_BLOCK, frames - start)
        counts.update(_owners_of(memory, table, start, min(_IN_BLOCK, frames - start)))
    found = {}
    for frame, count in counts.items():
        for base in bases:
            address = base + frame * PAGE
            if memory.is_xen(address) and memory.translate(address) == frame * PAGE:
                found[address] = count * frames // asked
                break
    return found


def frames_of(memory: XenMemory, table: Table | None, domain: int) -> Iterator[tuple[int, int]]:
    """Runs of machine frames in the dump that a struct domain owns: the first, and how many."""
    frames, own = max_page(memory, table), memory.translate(domain)
    if table is None or frames is None or own is None:
        return
    own //= PAGE
    for base, count in _held(memory.dump, frames):
        used, owners = _columns(memory, table, base, count)
        # Most frames are another's: let the list's own search pass over them.
        at = 0
        for _ in range(owners.count(own)):
            try:
                at = owners.index(own, at)
            except ValueError:
                break
            end = at
            while end < len(owners) and owners[end] == own and used[end] & _COUNT_MASK:
                end += 1
            if end > at:
                yield base + at, end - at
            at = max(end, at + 1)


def _held(dump: Dump, frames: int) -> Iterator[tuple[int, int]]:
    """Runs of those of the first ``frames`` frames that the dump has, each read at once.

    Together no more than the file has pages: max_page may be overwritten.
    """
    at, left = 0, dump.size // PAGE + 1
    for start, size, _ in sorted(dump.segments):
        at = max(at, start // PAGE)
        end = min(frames, -(-(start + size) // PAGE), at + left)
        while at < end:
            count = min(_AT_ONCE, end - at)
            yield at, count
            at += count
            left -= count


def _columns(
    memory: XenMemory, table: Table, start: int, count: int
) -> tuple[list[int], list[int]]:
    """count_info (its low half) and _domain of ``count`` page_infos; empty if they are lost."""
    base = memory.pointer(table.table_at)
    data = memory.read(base + start * table.size, count * table.size) if base else None
    if data is None:
        return [], []
    # Every 4 bytes one number: the low half of count_info counts, _domain has 32 bits.
    numbers = memoryview(data).cast("I")
    step = table.size // 4
    return (
        numbers[table.references // 4 :: step].tolist(),
        numbers[table.owner // 4 :: step].tolist(),
    )


def _owners_of(memory: XenMemory, table: Table, start: int, count: int) -> Iterator[int]:
    """_domain of those of ``count`` page_infos that are in use."""
    for used, owner in zip(*_columns(memory, table, start, count), strict=True):
        if owner and used & _COUNT_MASK:
            yield owner


def pages_offset(domains: Mapping[int, bytes], owned: Mapping[int, int]) -> int | None:
    """The offset of domain.tot_pages in the structs of ``domains`` (by address).

    It is near what the frame table says, in every domain. So is max_pages, which is never less, and
    stands near it.
    """
    known = {a: data for a, data in domains.items() if owned.get(a, 0) >= _IN_BLOCK}
    if not known:
        return None
    errors = {}
    values = {}
    for at in range(0, min(map(len, known.values())) - 4, 4):
        pages = {a: int.from_bytes(data[at : at + 4], "little") for a, data in known.items()}
        error = max(abs(pages[a] - owned[a]) / owned[a] for a in known)
        if error <= _TOLERANCE:
            errors[at], values[at] = error, sum(pages.values())
    if not errors:
        return None
    best = min(errors, key=lambda at: errors[at])
    return min((at for at in errors if abs(at - best) <= 32), key=lambda at: (values[at], at))
