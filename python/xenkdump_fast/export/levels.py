"""The dump level: which pages are written, by the kernel's page structs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .. import progress
from .._native import AbsentError
from ..limits import MAX_PAGE_ORDER, MAX_PAGES_AT_ONCE
from .page_flags import (
    CACHE,
    CACHE_PRIVATE,
    FREE,
    IS_CACHE,
    IS_CACHE_PRIVATE,
    IS_FREE,
    IS_UNUSABLE,
    IS_USER,
    KINDS,
    USER,
    ZERO,
    PageFlags,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..linux.system import Linux
    from ..session.bare import BareMachine

__all__ = ["ALL", "ZERO", "Kept", "kept"]

#: Every bit.
ALL = ZERO | CACHE | CACHE_PRIVATE | USER | FREE
#: The kinds that are left out by each bit.
_EXCLUDED = {
    CACHE: {IS_CACHE},
    CACHE_PRIVATE: {IS_CACHE, IS_CACHE_PRIVATE},
    USER: {IS_USER},
    FREE: {IS_FREE},
}


class Kept(NamedTuple):
    """The pages that are written."""

    #: First pfn and number of pages.
    pages: "NDArray[np.uint64]"
    #: Pages that are left out, by kind.
    excluded: dict[str, int]
    warnings: list[str]


def kept(kernel: "Linux", bare: "BareMachine", runs: "NDArray[np.uint64]", level: int) -> Kept:
    """The pages of ``runs`` at a dump level. AbsentError if they are not known."""
    import numpy as np

    flags = PageFlags(kernel, bare.vmcoreinfo, level, bare.paging)
    # Those that cannot be used are of no use at any level.
    wanted = {IS_UNUSABLE}
    for bit, left_out in _EXCLUDED.items():
        if level & bit:
            wanted |= left_out
    is_excluded = np.zeros(len(KINDS), bool)
    is_excluded[list(wanted)] = True
    counts = np.zeros(len(KINDS), np.uint64)
    unknown = seen = 0
    found: list[NDArray[np.uint64]] = []
    reader = _Reader(bare, flags)
    for first, kinds, is_known, is_held in reader.blocks(runs):
        out = is_excluded[kinds.astype(np.intp)] & is_held
        counts += np.bincount(kinds[out].astype(np.intp), minlength=len(KINDS)).astype(np.uint64)
        unknown += int(np.count_nonzero(is_held & ~is_known))
        seen += int(np.count_nonzero(is_held))
        found.append(_runs(is_held & ~out, first))
    pages = _joined(found)
    if unknown == seen:
        raise AbsentError(
            f"--dump-level {level}: no page struct can be read at {flags.start:#x} (level 1 needs "
            "none)"
        )
    warnings = flags.warnings
    if unknown:
        warnings.append(
            f"--dump-level {level}: {unknown} pages have no page struct that can be read; they "
            "are kept"
        )
    excluded = {KINDS[i]: int(counts[i]) for i in sorted(wanted) if counts[i]}
    return Kept(pages, excluded, warnings)


class _Reader:
    """Reads page structs block by block, so that memory in use is bounded."""

    def __init__(self, bare: "BareMachine", flags: PageFlags) -> None:
        self._virtual = bare.virtual
        self._flags = flags
        #: The kinds of the heads of compound pages that began in an earlier block.
        self._heads: dict[int, int] = {}

    def blocks(
        self, runs: "NDArray[np.uint64]"
    ) -> "Iterator[tuple[int, NDArray[np.uint64], NDArray[np.bool_], NDArray[np.bool_]]]":
        """First pfn, kinds, whether the struct was read, and whether the page is in ``runs``."""
        import numpy as np

        total = int(runs[-1].sum()) // MAX_PAGES_AT_ONCE + 1
        row = 0
        starts, ends = runs[:, 0], runs[:, 0] + runs[:, 1]
        for block in _blocks(runs):
            progress.now.set("block of page structs", block, total)
            first = block * MAX_PAGES_AT_ONCE
            end = first + MAX_PAGES_AT_ONCE
            is_held = np.zeros(MAX_PAGES_AT_ONCE, bool)
            while row < len(runs) and int(starts[row]) < end:
                low, high = max(int(starts[row]), first), min(int(ends[row]), end)
                is_held[low - first : high - first] = True
                if int(ends[row]) > end:
                    break
                row += 1
            kinds, is_known = self._kinds(first)
            yield first, kinds, is_known, is_held
        progress.now.what = ""

    def _kinds(self, first: int) -> "tuple[NDArray[np.uint64], NDArray[np.bool_]]":
        import numpy as np

        flags = self._flags
        pfns = np.arange(first, first + MAX_PAGES_AT_ONCE, dtype=np.uint64)
        rows, is_known = self._rows(pfns)
        kinds, order, heads = flags.kinds(rows, pfns)
        # Of a free block only the first page says so.
        is_free = (kinds == IS_FREE) & (order <= MAX_PAGE_ORDER)
        for at in np.flatnonzero(is_free & (order > 0)):
            size = 1 << int(order[at])
            if (first + int(at)) % size == 0:
                kinds[at : at + size] = IS_FREE
        # The pages of a compound page are of the kind of its head.
        tails = np.flatnonzero(heads != pfns)
        own = heads[tails] >= np.uint64(first)
        inside, before = tails[own], tails[~own]
        kinds[inside] = kinds[(heads[inside] - np.uint64(first)).astype(np.intp)]
        for head in map(int, np.unique(heads[before])):
            kinds[before[heads[before] == np.uint64(head)]] = self._kind_of(head)
        return kinds, is_known

    def _rows(self, pfns: "NDArray[np.uint64]") -> "tuple[NDArray[np.uint8], NDArray[np.bool_]]":
        import numpy as np

        flags = self._flags
        with np.errstate(over="ignore"):
            addresses = np.uint64(flags.start) + pfns * np.uint64(flags.size)
        status = np.empty(len(pfns), np.uint8)
        rows = self._virtual.read_many(addresses, flags.size, status=status)
        return rows, status == 0

    def _kind_of(self, head: int) -> int:
        """The kind of the head of a compound page in an earlier block."""
        import numpy as np

        if head not in self._heads:
            # Of pages of 1 GiB; a hostile dump may have others.
            self._heads.clear()
            pfns = np.arange(head, head + 2, dtype=np.uint64)
            kinds, _, _ = self._flags.kinds(self._rows(pfns)[0], pfns)
            self._heads[head] = int(kinds[0])
        return self._heads[head]


def _blocks(runs: "NDArray[np.uint64]") -> Iterator[int]:
    """The numbers of the blocks that the runs are in, ascending."""
    next_block = 0
    for first, count in runs:
        start, last = int(first), int(first) + int(count) - 1
        for block in range(
            max(start // MAX_PAGES_AT_ONCE, next_block), last // MAX_PAGES_AT_ONCE + 1
        ):
            yield block
            next_block = block + 1


def _runs(is_kept: "NDArray[np.bool_]", first: int) -> "NDArray[np.uint64]":
    """The runs of pages that are kept, of a block."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_kept, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    return np.stack([starts + first, ends - starts], axis=1).astype(np.uint64)


def _joined(found: "list[NDArray[np.uint64]]") -> "NDArray[np.uint64]":
    """Runs of blocks that adjoin, as one."""
    import numpy as np

    runs = np.concatenate(found) if found else np.empty((0, 2), np.uint64)
    if len(runs) == 0:
        return runs
    adjoins = runs[1:, 0] == runs[:-1, 0] + runs[:-1, 1]
    starts = np.flatnonzero(np.concatenate(([True], ~adjoins)))
    return np.stack([runs[starts, 0], np.add.reduceat(runs[:, 1], starts)], axis=1)
