"""Who owns machine frames: Xen, a domain, page tables, nobody. By the frame table, in bulk."""

from .._typing import TYPE_CHECKING, NamedTuple
from . import frame_table
from .memory import XenMemory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: What ``Owners.of`` returns for frames that are not a domain's.
UNKNOWN, XEN, FREE = -1, 0, -2
#: The low bits of type_info count the uses of a frame as its type.
_TYPE_COUNT = 0xFFFF_FFFF
#: count_info of a free page on x86_64: PGC_state_free alone. It has been PG_mask(3, 9) since 4.0
#: (4d5b3e46) and became PG_mask(3, 6) when the bits above it were no longer used. A page that has
#: to be scrubbed has PGC_need_scrub besides, in the highest bit or in one of those above the state.
_FREE = (3 << 55, 3 << 58)
_SCRUB = (1 << 63) | (1 << 60)
#: Frames whose page_infos are read at once.
_PIECE = 1 << 15


class Owned(NamedTuple):
    """The owners of frames."""

    #: The frame of the owner's struct domain, or UNKNOWN, XEN, FREE.
    owners: "NDArray[np.int64]"
    #: The frames that are page tables of a PV guest.
    tables: "NDArray[np.bool]"
    #: Whether free frames can be told from Xen's own.
    has_free: bool
    #: Whether page tables can be told from other frames.
    has_tables: bool


def of(
    memory: XenMemory,
    table: "frame_table.Table | None",
    mfns: "NDArray[np.uint64]",
    roots: "NDArray[np.uint64]",
) -> Owned | None:
    """The owners of machine frames; None without a frame table.

    ``roots`` are frames of top-level page tables of PV guests: they tell how type_info is encoded.
    """
    import numpy as np

    of_roots = frame_table.page_infos(memory, table, roots)
    if table is None or of_roots is None:
        return None
    has_free = memory.word == 8 and table.size % 8 == 0 and table.references % 8 == 0
    bits = _type_bits(*of_roots, table) if has_free else None
    owners = np.empty(len(mfns), np.int64)
    tables = np.zeros(len(mfns), bool)
    for first in range(0, len(mfns), _PIECE):
        part = slice(first, first + _PIECE)
        infos = frame_table.page_infos(memory, table, mfns[part])
        if infos is None:
            return None
        rows, is_read = infos
        halves = rows.view("<u4").reshape(len(rows), -1)
        used = halves[:, table.references // 4] & np.uint32(frame_table.COUNT_MASK)
        found = np.where(used != 0, halves[:, table.owner // 4], XEN).astype(np.int64)
        found[~is_read] = UNKNOWN
        if has_free:
            words = rows.view("<u8").reshape(len(rows), -1)
            state = words[:, table.references // 8] & ~np.uint64(_SCRUB)
            found[is_read & ((state == _FREE[0]) | (state == _FREE[1]))] = FREE
            if bits is not None:
                types = words[:, table.references // 8 + 1]
                tables[part] = is_read & (found > 0) & _are_tables(types, bits)
        owners[part] = found
    return Owned(owners, tables, has_free, bits is not None)


def _are_tables(types: "NDArray[np.uint64]", bits: int) -> "NDArray[np.bool]":
    import numpy as np

    kind = types >> np.uint64(64 - bits)
    is_used: NDArray[np.bool] = types & np.uint64(_TYPE_COUNT) != 0
    return is_used & (kind >= 1) & (kind <= 4)


def _type_bits(
    rows: "NDArray[np.uint8]", is_read: "NDArray[np.bool]", table: "frame_table.Table"
) -> int | None:
    """The width of the type in the highest bits of type_info: 3, or 4 in some versions of Xen.

    That one by which the roots are tables of level 4; None if neither is.
    """
    import numpy as np

    at = table.references // 8 + 1
    if 8 * (at + 1) > table.size or not is_read.any():
        return None
    types = rows[is_read].view("<u8").reshape(int(is_read.sum()), -1)[:, at]
    for bits in (3, 4):
        # Of a 32-bit guest the root has level 3.
        kind = types >> np.uint64(64 - bits)
        if ((kind == 4) | (kind == 3)).mean() > 0.5:
            return bits
    return None
