"""Xen as the source of an exported file: the machine memory that no guest owns, with its notes."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from .._native import AbsentError
from ..limits import MAX_XEN_MAPPINGS
from ..session.bare import held_pages
from ..xen import frame_table
from ..xen.memory import virtual_range
from . import mapping, notes
from .machine import EM_386, EM_X86_64, Source, version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..xen.host import XenHost

PAGE = mapping.PAGE
#: DIRECTMAP_VIRT_START (4.0 on; before it, PML4 slot 262 too).
_DIRECT_MAP = 0xFFFF_8300_0000_0000
#: Frames of each domain: all of them.
_ALL_FRAMES = 1 << 52


def of_xen(xen: "XenHost") -> Source:
    """Xen: its image and its other mappings by their virtual addresses, and the direct map."""
    warnings: list[str] = []
    runs = held_pages(xen.dump.machine)
    guests = _guests(xen, warnings)
    pages = _without(runs, guests)
    if not len(pages):
        raise AbsentError(f"{xen.dump.path}: the dump holds no memory of Xen")
    direct = _direct(xen, pages)
    if direct is None:
        warnings.append("Xen's direct map is not where it is known to be: it has no addresses")
    others = list(islice(_mappings(xen), MAX_XEN_MAPPINGS + 1))
    if len(others) > MAX_XEN_MAPPINGS:
        others.pop()
        warnings.append(f"of Xen's mappings the first {MAX_XEN_MAPPINGS} have virtual addresses")
    excluded = {"of guests": int(runs[:, 1].sum() - pages[:, 1].sum())}
    own = {
        "tool": version(),
        "source": {
            "files": [xen.dump.path],
            "format": xen.dump.format,
            "size": xen.dump.size,
            "domain": None,
            "is_xen_host": True,
        },
        "excluded": excluded,
    }
    copied = list(notes.numbered(xen.dump.notes))
    options = {
        "machine": EM_X86_64 if xen.word == 8 else EM_386,
        # A 32-bit Xen has memory above 4 GiB.
        "is_64": True,
        "notes": b"".join([*copied, notes.own(own)]),
        "direct": direct,
        "others": others,
    }
    return Source(xen.dump, xen.dump, pages, pages, excluded, options, warnings, None)


def _guests(xen: "XenHost", warnings: list[str]) -> "NDArray[np.uint64]":
    """The runs of frames that guests own, ascending."""
    import numpy as np

    addresses = [domain.address for domain in xen.domains()]
    found = frame_table.frames_of(xen.memory, xen.facts.frames, addresses, _ALL_FRAMES)
    runs = [each.astype(np.uint64) for each in found.values() if len(each)]
    if not runs:
        warnings.append("Xen's frame table cannot be read: the file has the memory of guests too")
        return np.empty((0, 2), np.uint64)
    every = np.concatenate(runs)
    return every[np.argsort(every[:, 0], kind="stable")]


def _without(runs: "NDArray[np.uint64]", gaps: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """The parts of ``runs`` that are not in ``gaps``; both ascend."""
    import numpy as np

    rows: list[tuple[int, int]] = []
    at = 0
    for first, count in runs.tolist():
        start, end = first, first + count
        while at < len(gaps) and int(gaps[at].sum()) <= start:
            at += 1
        while at < len(gaps) and int(gaps[at][0]) < end:
            low, high = int(gaps[at][0]), int(gaps[at].sum())
            if low > start:
                rows.append((start, low - start))
            start = max(start, high)
            if high > end:
                break
            at += 1
        if start < end:
            rows.append((start, end - start))
    return np.array(rows, np.uint64).reshape(-1, 2)


def _direct(xen: "XenHost", pages: "NDArray[np.uint64]") -> mapping.Mapping | None:
    """The direct map, verified by Xen's page tables; None on i386."""
    if xen.word != 8:
        return None
    end = int(pages[-1].sum())
    return mapping.verified(xen.memory.virtual, _DIRECT_MAP, pages, end)


def _mappings(xen: "XenHost") -> Iterator[mapping.Mapping]:
    """What Xen maps below the direct map: its image, its frame table, the M2P, vmap."""
    start, end = virtual_range(xen.word)
    if xen.word == 8:
        end = _DIRECT_MAP
    for found in xen.memory.virtual.iter_mapped(start, end):
        count = found.size // PAGE
        if count and found.address % PAGE == 0 and found.machine % PAGE == 0:
            yield found.address, found.machine // PAGE, count
