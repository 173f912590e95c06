"""The grant table of a domain, by the DWARF of xen-syms."""

from collections.abc import Iterator

from .._native import AbsentError
from .._typing import NamedTuple
from ..limits import MAX_GRANTS
from .memory import PAGE
from .structs import Structs, listed

#: Flags of a shared entry by bit (public ABI, GTF_*): of access, and of a transfer.
_ACCESS_FLAGS = {
    2: "readonly",
    3: "reading",
    4: "writing",
    5: "PWT",
    6: "PCD",
    7: "PAT",
    8: "sub_page",
}
_TRANSFER_FLAGS = {2: "committed", 3: "completed"}
_TYPES = ("invalid", "access", "transfer", "transitive")
#: Uses that all toolstacks make of the first grants (public ABI, GNTTAB_RESERVED_*).
RESERVED = {0: "console", 1: "xenstore"}
#: Bytes of a shared entry and of an entry of the status array by version (public ABI).
_SHARED = {1: 8, 2: 16}
_STATUS = 2
#: Counters of ``active_grant_entry.pin``, 8 bits each (GNTPIN_*).
_PINS = ("host_write", "host_read", "device_write", "device_read")
#: Flags of a mapping (public ABI, GNTMAP_*).
_DEVICE, _HOST, _READ_ONLY = 1 << 0, 1 << 1, 1 << 2


class Grant(NamedTuple):
    """A grant that is offered or in use."""

    ref: int
    #: "access", "transfer", "transitive", "invalid".
    type: str
    #: The domain that may use it.
    domain: int | None
    #: The frame that the guest wrote there: a gfn, of a PV guest an mfn.
    frame: int | None
    flags: list[str]
    #: The machine frame that is in use; None if it is not.
    mfn: int | None
    #: How often it is in use, by kind; without those that are 0.
    pins: dict[str, int]
    problem: str | None = None


class Mapping(NamedTuple):
    """A grant of another domain that a domain has mapped."""

    handle: int
    domain: int
    ref: int
    host: bool
    device: bool
    read_only: bool


class GrantTable(NamedTuple):
    """The grant table of a domain."""

    version: int
    frames: int
    max_frames: int
    grants: list[Grant]
    maps: list[Mapping]
    warnings: list[str]


class _Array:
    """An array in pages, to which an array of pointers leads."""

    def __init__(self, structs: Structs, pointers: int | None, entry: int) -> None:
        """``pointers`` is the address of the pointers, ``entry`` the size of an entry."""
        self._memory = structs.memory
        self._pointers = pointers
        self.size = entry
        self.per_page = PAGE // entry
        self._page: tuple[int, bytes | None] = (-1, None)

    def entry(self, index: int) -> bytes | None:
        """An entry; None if it cannot be read. Those of a page are read at once."""
        number, place = divmod(index, self.per_page)
        if self._page[0] != number:
            self._page = number, self._read(number)
        page = self._page[1]
        return None if page is None else page[place * self.size : (place + 1) * self.size]

    def _read(self, number: int) -> bytes | None:
        memory = self._memory
        if self._pointers is None:
            return None
        at = memory.pointer(self._pointers + number * memory.word)
        if not at or at % memory.word or not memory.is_xen(at):
            return None
        return memory.read(at, PAGE)


def read(structs: Structs, domain: int) -> GrantTable:
    """The table of the ``struct domain`` at that address; AbsentError if nothing leads to it."""
    table = structs.pointer("domain.grant_table", domain)
    if table is None:
        raise AbsentError("it has no grant table that can be read")
    back = structs.number("grant_table.domain", table)
    if structs.has("grant_table.domain") and back != domain:
        raise AbsentError(f"its grant table at {table:#x} is of another domain: {back or 0:#x}")

    def count(name: str) -> int:
        found = structs.number(f"grant_table.{name}", table)
        if found is None:
            raise AbsentError(f"its grant table at {table:#x} has no {name} that can be read")
        return found

    version, frames = count("gt_version"), count("nr_grant_frames")
    warnings: list[str] = []
    grants: list[Grant] = []
    if version in _SHARED:
        number = frames * (PAGE // _SHARED[version])
        if number > MAX_GRANTS:
            warnings.append(f"only {MAX_GRANTS} of its {number} grants are shown")
            number = MAX_GRANTS
        grants += _grants(structs, table, version, number, warnings)
    elif version:
        warnings.append(f"the version of its grant table is not known: {version}")
    maps = list(_maps(structs, table, warnings))
    problems = [f"grant {one.ref}: {one.problem}" for one in grants if one.problem]
    warnings += listed(problems, "grants are damaged")
    return GrantTable(version, frames, count("max_grant_frames"), grants, maps, warnings)


def _grants(
    structs: Structs, table: int, version: int, number: int, warnings: list[str]
) -> Iterator[Grant]:
    pin, domid = structs.field("active_grant_entry.pin"), structs.field("active_grant_entry.domid")
    # Before 4.11 it is called frame.
    name = "mfn" if structs.has("active_grant_entry.mfn") else "frame"
    mfn = structs.field(f"active_grant_entry.{name}")
    active = _Array(
        structs,
        structs.pointer("grant_table.active", table),
        structs.size("struct active_grant_entry"),
    )
    shared = _Array(structs, structs.pointer("grant_table.shared_raw", table), _SHARED[version])
    status = None
    if version == 2:
        status = _Array(structs, structs.pointer("grant_table.status", table), _STATUS)
    missing = 0
    for ref in range(number):
        used, offered = active.entry(ref), shared.entry(ref)
        if used is None or offered is None:
            missing += 1
        if used is None and offered is None:
            continue
        pins = 0 if used is None else pin.of(used)
        flags = 0 if offered is None else int.from_bytes(offered[:2], "little")
        kind = _TYPES[flags & 3]
        if not pins and kind == "invalid":
            continue
        state = None if status is None else status.entry(ref)
        if state is not None:
            flags |= int.from_bytes(state, "little") & (1 << 3 | 1 << 4)
        names = _TRANSFER_FLAGS if kind == "transfer" else _ACCESS_FLAGS
        domain = None if offered is None else int.from_bytes(offered[2:4], "little")
        problem = None
        if pins and used is not None:
            by = domid.of(used)
            if domain is not None and by != domain:
                problem = f"domain {by} uses it, but it is for domain {domain}"
            domain = by
        yield Grant(
            ref=ref,
            type=kind,
            domain=domain,
            frame=None if offered is None else _frame(offered, version, kind),
            flags=[text for bit, text in names.items() if flags >> bit & 1],
            mfn=mfn.of(used) if pins and used is not None else None,
            pins={
                text: pins >> 8 * i & 0xFF for i, text in enumerate(_PINS) if pins >> 8 * i & 0xFF
            },
            problem=problem,
        )
    if missing:
        warnings.append(f"{missing} of {number} grants are not known: they cannot be read")


def _frame(entry: bytes, version: int, kind: str) -> int | None:
    """The frame of a shared entry; None for a transitive one, which has none."""
    if version == 1:
        return int.from_bytes(entry[4:8], "little")
    return None if kind == "transitive" else int.from_bytes(entry[8:16], "little")


def _maps(structs: Structs, table: int, warnings: list[str]) -> Iterator[Mapping]:
    """The grants that the domain itself has mapped: the maptrack."""
    limit = structs.number("grant_table.maptrack_limit", table)
    if not limit:
        return
    if limit > MAX_GRANTS:
        warnings.append(f"only {MAX_GRANTS} of its {limit} mapping handles are shown")
        limit = MAX_GRANTS
    ref, flags = structs.field("grant_mapping.ref"), structs.field("grant_mapping.flags")
    domid = structs.field("grant_mapping.domid")
    entries = _Array(
        structs,
        structs.pointer("grant_table.maptrack", table),
        structs.size("struct grant_mapping"),
    )
    missing = 0
    for handle in range(limit):
        entry = entries.entry(handle)
        if entry is None:
            missing += 1
            continue
        bits = flags.of(entry)
        if bits & (_DEVICE | _HOST):
            yield Mapping(
                handle=handle,
                domain=domid.of(entry),
                ref=ref.of(entry),
                host=bool(bits & _HOST),
                device=bool(bits & _DEVICE),
                read_only=bool(bits & _READ_ONLY),
            )
    if missing:
        warnings.append(f"{missing} of {limit} mapping handles cannot be read")
