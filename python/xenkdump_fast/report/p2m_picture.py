"""How fragmented a P2M is: extents that are contiguous both in pfns and in mfns."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._native import P2M
from ..limits import MAX_REPORT_STRIP
from .model import P2mPicture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Classes of sizes: the fewest pages of each, and a label.
CLASSES = (
    (1, "4 KiB"),
    (2, "8 KiB to 60 KiB"),
    (16, "64 KiB to 2 MiB"),
    (512, "2 MiB to 64 MiB"),
    (1 << 14, "64 MiB to 1 GiB"),
    (1 << 18, "1 GiB and more"),
)
#: pfns that are looked up at once.
_PIECE = 1 << 20


def picture(p2m: P2M, limit: int) -> P2mPicture | None:
    """The extents of a P2M, or of a sample of more than ``limit`` pfns. None if it is empty.

    A sample has a window in each piece of the pfn space; an extent counts as far as it is in one.
    """
    import numpy as np

    pages = p2m.pages
    if pages <= 0:
        return None
    piece = -(-pages // MAX_REPORT_STRIP)
    fewest = np.array([least for least, _ in CLASSES], np.int64)
    extents = np.zeros(len(CLASSES), np.int64)
    held = np.zeros(len(CLASSES), np.int64)
    # Pages by piece of the strip and by class.
    strip = np.zeros((-(-pages // piece), len(CLASSES)), np.int64)
    read = frames = 0
    for pfns in _windows(pages, piece, limit):
        read += len(pfns)
        starts, sizes = _runs(p2m, pfns)
        frames += int(sizes.sum())
        kinds = np.searchsorted(fewest, sizes, side="right") - 1
        extents += np.bincount(kinds, minlength=len(CLASSES))
        held += np.bincount(kinds, sizes, len(CLASSES)).astype(np.int64)
        _paint(strip, starts, sizes, kinds, piece)
    if not frames:
        return None
    best = strip.argmax(axis=1)
    return {
        "source": p2m.source,
        "pages": pages,
        "frames": frames,
        "read": read,
        "extents": [
            {"label": label, "extents": int(extents[i]), "pages": int(held[i])}
            for i, (_, label) in enumerate(CLASSES)
        ],
        "strip": [int(i) if strip[at, i] else None for at, i in enumerate(best)],
    }


def _windows(pages: int, piece: int, limit: int) -> "Iterator[NDArray[np.uint64]]":
    """The pfns to look up: all of them, or the first ones of each piece."""
    import numpy as np

    if pages <= limit:
        for first in range(0, pages, _PIECE):
            yield np.arange(first, min(first + _PIECE, pages), dtype=np.uint64)
        return
    size = max(1, limit // MAX_REPORT_STRIP)
    starts = np.arange(0, pages, piece, dtype=np.uint64)
    offsets = np.arange(min(size, piece), dtype=np.uint64)
    pfns: NDArray[np.uint64] = np.add.outer(starts, offsets).reshape(-1)
    yield pfns[pfns < pages]


def _runs(p2m: P2M, pfns: "NDArray[np.uint64]") -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """The first pfn and the size of each run of frames in ascending pfns."""
    import numpy as np

    status = np.empty(len(pfns), np.uint8)
    mfns = p2m.resolve(pfns, status=status)
    valid = status == 0
    # A run ends where the next frame is another one, or where an entry is no frame.
    follows = np.zeros(len(pfns), bool)
    follows[1:] = valid[1:] & valid[:-1] & (mfns[1:] == mfns[:-1] + np.uint64(1))
    follows[1:] &= pfns[1:] == pfns[:-1] + np.uint64(1)
    starts = np.flatnonzero(valid & ~follows)
    ends = np.flatnonzero(valid & ~np.append(follows[1:], False)) + 1
    return pfns[starts].astype(np.int64), ends - starts


def _paint(
    strip: "NDArray[Any]",
    starts: "NDArray[np.int64]",
    sizes: "NDArray[np.int64]",
    kinds: "NDArray[np.int64]",
    piece: int,
) -> None:
    """Adds the pages of runs to the pieces of the strip in which they are."""
    import numpy as np

    inside = starts // piece == (starts + sizes - 1) // piece
    np.add.at(strip, (starts[inside] // piece, kinds[inside]), sizes[inside])
    for start, size, kind in zip(starts[~inside], sizes[~inside], kinds[~inside], strict=True):
        at, end = int(start), int(start + size)
        while at < end:
            step = min(end, (at // piece + 1) * piece) - at
            strip[at // piece, kind] += step
            at += step
