"""Who owns machine memory, in about 2,000 cells whatever its size."""

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from .._native import Dump
from ..limits import (
    MAX_REPORT_CELLS,
    MAX_REPORT_DOMAINS,
    MAX_REPORT_MACHINE_FRAMES,
    MAX_REPORT_RUNS,
    MAX_REPORT_SAMPLED_FRAMES,
)
from ..xen import frame_owners, frame_table
from ..xen.domains import FIRST_RESERVED
from .model import MemoryPicture, Owner

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..xen.host import XenHost

_PAGE = 4096
#: Bytes of the frame table that are charged for each frame; a page_info has at most that many.
_CHARGED = 256
#: Multiplies numbers of samples, so that these are not at equal distances.
_SCATTER = 0x9E37_79B1
#: Frames of a block of a sample.
_BLOCK = 8
#: Roots of page tables by which the encoding of types is recognised.
_ROOTS = 256


class Drawn(NamedTuple):
    """A picture, and what is uncertain about it."""

    picture: MemoryPicture
    doubts: list[str]


def of_host(xen: "XenHost") -> Drawn | None:
    """The picture of a host's memory by Xen's frame table; None without one."""
    import numpy as np

    table = xen.facts.frames
    frames = frame_table.max_page(xen.memory, table)
    if not frames:
        return None
    step, mfns = _sample(frames)
    roots = [
        vcpu.root // _PAGE
        for domain in xen.domains()
        if domain.kind == "pv"
        for vcpu in domain.vcpus
        if vcpu.root and vcpu.root // _PAGE < frames
    ][:_ROOTS]
    size = (len(mfns) + len(roots) + 1) * _CHARGED
    with xen.memory.budget("frames for the picture of memory", size):
        owned = frame_owners.of(xen.memory, table, mfns, np.array(roots, np.uint64))
    if owned is None:
        return None
    doubts = []
    held = _held(xen.dump, mfns)
    if held is None:
        doubts.append("the dump has too many pieces: the picture of memory does not show which")
    if not owned.has_free:
        doubts.append("32-bit Xen does not mark free memory: it is shown as Xen's")
    if not owned.has_tables:
        doubts.append("no page table of a PV guest shows how Xen marks them: they are not shown")
    owners, kinds = _owners(xen, owned, held, step)
    if step > 1:
        doubts.append(f"the picture of memory is a sample: one frame of {step}")
    return Drawn(_picture(frames, step, mfns, owners, kinds, "Xen's frame table"), doubts)


def _sample(frames: int) -> "tuple[int, NDArray[np.uint64]]":
    """The step and the frames: all, or blocks at equal distances.

    Blocks are read together, because page_infos of adjacent frames are adjacent.
    """
    import numpy as np

    if frames <= MAX_REPORT_MACHINE_FRAMES:
        return 1, np.arange(frames, dtype=np.uint64)
    step = -(-frames // MAX_REPORT_SAMPLED_FRAMES)
    size = step * _BLOCK
    numbers = np.arange(-(-frames // size), dtype=np.uint64)
    places = np.uint64(size - _BLOCK + 1)
    starts = numbers * np.uint64(size) + numbers * np.uint64(_SCATTER) % places
    mfns = (starts[:, None] + np.arange(_BLOCK, dtype=np.uint64)).reshape(-1)
    return step, mfns[mfns < frames]


class _Names(NamedTuple):
    """Domains by the frames of their structs."""

    ids: dict[int, int]

    @classmethod
    def of(cls, xen: "XenHost") -> "_Names":
        found = {}
        for domain in xen.domains(all=True):
            at = xen.memory.translate(domain.address)
            if at is not None:
                found[at // _PAGE] = domain.id
        return cls(found)


def _owners(
    xen: "XenHost", owned: frame_owners.Owned, held: "NDArray[np.bool] | None", step: int
) -> "tuple[list[Owner], NDArray[np.int64]]":
    """The owners, and for each frame an index into them."""
    import numpy as np

    ids = _Names.of(xen).ids
    # Of few different ones, which takes less time than return_inverse. np.unique would import
    # numpy.ma, which takes longer still.
    edges = np.flatnonzero(owned.owners[1:] != owned.owners[:-1])
    different = {*owned.owners[:1].tolist(), *owned.owners[edges + 1].tolist()}
    frames = np.array(sorted(different), np.int64)
    inverse = np.searchsorted(frames, owned.owners)
    counts = np.bincount(inverse, minlength=len(frames))
    owners: list[Owner] = []

    def add(name: str, kind: Any, domain: int | None = None) -> int:
        owners.append({"name": name, "kind": kind, "domain": domain, "pages": 0})
        return len(owners) - 1

    of_xen = add("Xen" if owned.has_free else "Xen, or free", "xen")
    pages = dict(zip(frames.tolist(), counts.tolist(), strict=True))
    guests = [frame for frame in frames.tolist() if ids.get(frame, FIRST_RESERVED) < FIRST_RESERVED]
    guests.sort(key=lambda frame: (-pages[frame], ids[frame]))
    index: dict[int, int] = {}
    for frame in sorted(guests[:MAX_REPORT_DOMAINS], key=ids.__getitem__):
        index[frame] = add(f"domain {ids[frame]}", "domain", ids[frame])
    if guests[MAX_REPORT_DOMAINS:]:
        others = add(f"{len(guests) - MAX_REPORT_DOMAINS} other domains", "other")
        index.update(dict.fromkeys(guests[MAX_REPORT_DOMAINS:], others))
    tables = add("page tables of PV guests", "tables") if owned.has_tables else of_xen
    free = add("free", "free") if owned.has_free else of_xen
    unknown = add("not known", "other")
    missing = add("not in the dump", "missing")
    for frame in frames.tolist():
        # Xen's own domains (DOMID_XEN, DOMID_IO) have memory that is Xen's or a device's.
        is_own = frame == frame_owners.XEN or ids.get(frame, 0) >= FIRST_RESERVED
        special = {frame_owners.FREE: free, frame_owners.UNKNOWN: unknown}
        index.setdefault(frame, of_xen if is_own else special.get(frame, unknown))
    kinds = np.array([index[frame] for frame in frames.tolist()], np.int64)[inverse]
    kinds[owned.tables] = tables
    if held is not None:
        kinds[~held] = missing
    counts = np.bincount(kinds, minlength=len(owners))
    for owner, count in zip(owners, counts.tolist(), strict=True):
        owner["pages"] = count * step
    return owners, kinds


def of_machine(dump: Dump) -> Drawn | None:
    """The picture of a bare machine's memory: what the dump has, and what it lacks."""
    import numpy as np

    segments = [(start, start + size) for start, _, size in dump.segments if size > 0]
    end = max((end for _, end in segments), default=0)
    runs = list(islice(dump.machine.iter_mapped(), MAX_REPORT_RUNS))
    if not runs and not end:
        return None
    end = max(end, *(run.address + run.size for run in runs)) if runs else end
    frames = min(-(-end // _PAGE), (1 << 63) // _PAGE)
    step = -(-frames // MAX_REPORT_MACHINE_FRAMES)
    mfns = np.arange(0, frames, step, dtype=np.uint64)
    held = _held(dump, mfns)
    if held is None:
        return None
    owners: list[Owner] = [
        {"name": "in the dump", "kind": "held", "domain": None, "pages": 0},
        {"name": "not in the dump", "kind": "missing", "domain": None, "pages": 0},
        {"name": "no memory", "kind": "other", "domain": None, "pages": 0},
    ]
    kinds = np.where(held, 0, 1)
    doubts = []
    if segments:
        kinds[~held & ~_within(mfns, segments)] = 2
    else:
        owners[1]["name"] = "not in the dump, or no memory"
    if step > 1:
        doubts.append(f"the picture of memory is a sample: one frame of {step}")
    counts = np.bincount(kinds, minlength=len(owners))
    for owner, count in zip(owners, counts.tolist(), strict=True):
        owner["pages"] = count * step
    return Drawn(_picture(frames, step, mfns, owners, kinds, "the headers of the dump"), doubts)


def _picture(
    frames: int,
    step: int,
    mfns: "NDArray[np.uint64]",
    owners: list[Owner],
    kinds: "NDArray[np.int64]",
    source: str,
) -> MemoryPicture:
    """The picture: the owner of most frames of each cell.

    Where domains have most of it together but none has half, that is several domains.
    """
    import numpy as np

    per_cell = -(-frames // MAX_REPORT_CELLS)
    cells = -(-frames // per_cell)
    at = (mfns // np.uint64(per_cell)).astype(np.int64)
    counts = np.bincount(at * len(owners) + kinds, minlength=cells * len(owners))
    counts = counts.reshape(cells, len(owners))
    best = counts.argmax(axis=1)
    whole = counts.sum(axis=1)
    guests = [i for i, owner in enumerate(owners) if owner["kind"] == "domain"]
    is_mixed = (2 * counts[:, guests].sum(axis=1) > whole) & (2 * counts.max(axis=1) < whole)
    best[is_mixed] = len(owners)
    found = [int(i) if whole[cell] else None for cell, i in enumerate(best)]
    used = [i for i, owner in enumerate(owners) if owner["pages"]]
    if is_mixed.any():
        used.append(len(owners))
        several: Owner = {"name": "several domains", "kind": "several", "domain": None, "pages": 0}
        owners = [*owners, several]
    renumbered = {i: number for number, i in enumerate(used)}
    return {
        "frames": frames,
        "frames_per_cell": per_cell,
        "sampled": step,
        "owners": [owners[i] for i in used],
        "cells": [None if i is None else renumbered[i] for i in found],
        "source": source,
    }


def _held(dump: Dump, mfns: "NDArray[np.uint64]") -> "NDArray[np.bool] | None":
    """Which frames the dump has; None if it has too many runs of them."""
    runs = list(islice(dump.machine.iter_mapped(), MAX_REPORT_RUNS + 1))
    if len(runs) > MAX_REPORT_RUNS:
        return None
    return _within(mfns, [(run.address, run.address + run.size) for run in runs])


def _within(mfns: "NDArray[np.uint64]", ranges: list[tuple[int, int]]) -> "NDArray[np.bool]":
    """Which frames have a part in one of the ranges of addresses."""
    import numpy as np

    if not ranges:
        return np.zeros(len(mfns), bool)
    ordered = sorted(ranges)
    starts = np.array([start // _PAGE for start, _ in ordered], np.uint64)
    ends = np.maximum.accumulate(np.array([-(-end // _PAGE) for _, end in ordered], np.uint64))
    at = np.searchsorted(starts, mfns, side="right")
    is_before: NDArray[np.bool] = mfns < ends[np.maximum(at, 1) - 1]
    return is_before & (at > 0)
