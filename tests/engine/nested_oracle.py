"""Xen's P2M of a translated guest in plain Python, by the processor manuals and Xen's p2m.h.

It shares no code with the package, so that both cannot have the same error.
"""

from .machine import PAGE, Machine

ADDRESS = 0x000F_FFFF_FFFF_F000
#: p2m_type_t.
(
    RAM_RW,
    INVALID,
    LOGDIRTY,
    RAM_RO,
    MMIO_DM,
    MMIO_DIRECT,
    POD,
    GRANT_RW,
    GRANT_RO,
    PAGING_OUT,
    PAGED,
    PAGING_IN,
    SHARED,
    BROKEN,
    FOREIGN,
    IOREQ,
) = range(16)
_RAM = (RAM_RW, LOGDIRTY, RAM_RO, SHARED, IOREQ)
_OTHERS = {
    MMIO_DIRECT: "mmio",
    GRANT_RW: "grant",
    GRANT_RO: "grant",
    FOREIGN: "foreign",
    BROKEN: "broken",
}
_WITHOUT_FRAME = {
    INVALID: "invalid",
    MMIO_DM: "emulated",
    POD: "populate on demand",
    PAGED: "paged out",
    PAGING_IN: "paged out",
}
Entry = tuple[str, int | None]


def npt(mfn: int, kind: int = RAM_RW, *, large: bool = False) -> int:
    """An entry of NPT that maps a page as Xen writes it."""
    absent = kind in _WITHOUT_FRAME or kind == PAGING_OUT
    return mfn << 12 | kind << 52 | (0 if absent else 0x67) | large << 7


def ept(mfn: int, kind: int = RAM_RW, *, large: bool = False) -> int:
    """The same in EPT: readable, writable and executable, write-back."""
    absent = kind in _WITHOUT_FRAME or kind == PAGING_OUT
    return mfn << 12 | kind << 52 | (0 if absent else 0x37) | large << 7 | 1 << 63


def lookup(machine: Machine, layout: str, root: int, pfn: int) -> Entry:
    """The entry of a pfn below the root at that address."""
    is_ept, levels = layout.startswith("ept"), 5 if layout.endswith("5") else 4
    table, rest = root, pfn
    for level in range(levels, 0, -1):
        shift = 9 * (level - 1)
        if rest >> (shift + 9):
            return "invalid", None
        index, rest = rest >> shift, rest & ((1 << shift) - 1)
        raw = machine.number(table + index * 8, 8)
        if raw is None:
            return "no table", None
        present = raw & 7 if is_ept else raw & 1
        if level == 1:
            return _decode(raw, bool(present) or is_ept, 6 if is_ept else 7, 0)
        if not present:
            kind, mfn = _decode(raw, False, 6 if is_ept else 7, 0)
            return (kind, None) if mfn is None else ("invalid", None)
        if raw & 1 << 7:
            ignored = 0 if is_ept else 1 << 12
            reserved = ((1 << (12 + shift)) - PAGE) & ~ignored
            if level > 3 or raw & reserved:
                return "no table", None
            return _decode(raw & ~(ignored | 0), True, 6 if is_ept else 7, rest)
        table = raw & ADDRESS
    raise AssertionError("the walk did not end at the last level")


def _decode(raw: int, mapped: bool, width: int, more: int) -> Entry:
    kind = raw >> 52 & ((1 << width) - 1)
    mfn = (raw & ADDRESS) >> 12
    none = mfn == (1 << 40) - 1
    if raw == 0 or kind > IOREQ:
        return "invalid", None
    if kind in _WITHOUT_FRAME:
        return _WITHOUT_FRAME[kind], None
    if kind == PAGING_OUT:
        return ("paged out", None) if none else ("frame", mfn + more)
    if not mapped or none:
        return "invalid", None
    if kind in _RAM:
        return ("frame", mfn + more) if mfn + more < 1 << 40 else ("invalid", None)
    return _OTHERS[kind], mfn + more
