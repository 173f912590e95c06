"""The forms in which a domain publishes its P2M: linear list, frame-list tree."""

from __future__ import annotations

from dataclasses import dataclass

from .guest import Guest
from .machine import PAGE


@dataclass
class LinearList:
    """The P2M as pages of entries; ``shared`` pages are used for ranges without entries."""

    pfns: list[int]
    missing: int | None
    shared: dict[int, int]


def write_list(guest: Guest, sparse: bool, shared_tail: int = 0) -> LinearList:
    """Writes the entries into pages of the guest.

    A pvops kernel (``sparse``) uses one shared page for every page of ~0, also for those without a
    pfn below ``pages``, and for ``shared_tail`` pages after the last one.
    """
    per_page = PAGE // guest.word
    count = -(-guest.pages // per_page)
    # No more than a frame-list tree has leaves.
    total = min(-(-guest.max_pfn // per_page) + shared_tail, per_page * per_page)
    blank = b"\xff" * PAGE
    missing: int | None = None
    raw = guest.p2m.tobytes()
    chunks = [raw[i * PAGE : (i + 1) * PAGE].ljust(PAGE, b"\xff") for i in range(count)]
    pfns: list[int] = []
    shared: dict[int, int] = {}
    if sparse:
        missing = guest.allocate()
        guest.write_pfn(missing, blank)
    # Real pages are consecutive: they come from the boot allocator.
    own = [i for i, chunk in enumerate(chunks) if missing is None or chunk != blank]
    first = guest.allocate(len(own))
    for n, i in enumerate(own):
        shared[i] = first + n
        guest.write_pfn(first + n, chunks[i])
    for i in range(total):
        pfn = shared.get(i, missing)
        assert pfn is not None
        pfns.append(pfn)
    return LinearList(pfns, missing, {i: p for i, p in enumerate(pfns) if p == missing})


def write_tree(guest: Guest, entries: LinearList, zero_terminated: bool) -> int:
    """Writes the frame-list tree over the pages of a list; returns the mfn of its top page.

    Unused slots are 0 in classic kernels; in pvops they point to shared pages of missing entries.
    """
    per_page = PAGE // guest.word
    top = guest.allocate()
    missing = 0 if zero_terminated else guest.mfn(entries.missing or entries.pfns[0])
    top_words = []
    for i in range(0, len(entries.pfns), per_page):
        part = [guest.mfn(pfn) for pfn in entries.pfns[i : i + per_page]]
        mid = guest.allocate()
        guest.write_pfn(mid, _words(guest, part, missing))
        top_words.append(guest.mfn(mid))
    filler = 0
    if not zero_terminated:
        mid_missing = guest.allocate()
        guest.write_pfn(mid_missing, _words(guest, [], missing))
        filler = guest.mfn(mid_missing)
    guest.write_pfn(top, _words(guest, top_words, filler))
    return guest.mfn(top)


def _words(guest: Guest, values: list[int], filler: int) -> bytes:
    per_page = PAGE // guest.word
    padded = values + [filler] * (per_page - len(values))
    return b"".join(value.to_bytes(guest.word, "little") for value in padded)
