"""Xen's timers of each pCPU: a heap ordered by expiry, a list of what did not fit into it, and the
one whose handler runs.

``struct timer`` has been the same since Xen 4.0. What is before the heap in ``struct timers``, a
lock, differs in size: without DWARF the heap is what proves to be one on every pCPU.
"""

from collections.abc import Iterator

from .._native import AbsentError, Symbols
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_PCPUS, MAX_TIMER_READS, MAX_XEN_LIST
from .memory import XenMemory
from .structs import listed

if TYPE_CHECKING:
    from .host import XenHost

#: Offsets in a struct timer: expires, heap_offset (or list_next), function, data, cpu, status.
_EXPIRES, _PLACE, _FUNCTION, _DATA, _CPU, _STATUS = 0, 8, 24, 32, 40, 42
_SIZE = 48
#: ``timer.status`` (TIMER_STATUS_*).
_IN_HEAP, _IN_LIST = 3, 4
#: Offsets of timers.heap, behind locks of a release build, of a debug build and with profiling.
_HEAPS = (8, 16, 24, 32)


class Timer(NamedTuple):
    """A timer that is set, or whose handler runs."""

    address: int
    #: System time in ns since Xen was booted.
    expires: int
    #: The handler, and the symbol and the offset where it is.
    function: int
    symbol: str | None
    offset: int
    data: int
    #: "heap", "list" or "running".
    where: str
    problem: str | None = None


class PcpuTimers(NamedTuple):
    """The timers of a pCPU, by their expiry."""

    pcpu: int
    timers: list[Timer]


class Timers(NamedTuple):
    """The timers of a host."""

    #: The latest system time that Xen has recorded, in ns; the crash was later. None if not known.
    time: int | None
    #: What recorded it.
    time_by: str | None
    rows: list[PcpuTimers]
    warnings: list[str]


class _Offsets(NamedTuple):
    """Offsets in a struct timers."""

    heap: int
    list: int
    running: int


def read(xen: "XenHost") -> Timers:
    """The timers; AbsentError without Xen's symbols, or if nothing leads to a heap of timers."""
    if xen.word != 8:
        raise AbsentError("timers of a 32-bit Xen are not supported")
    latest = _latest(xen)
    with xen.memory.budget("timers", MAX_TIMER_READS):
        return _Reader(xen).read(*latest)


def _latest(xen: "XenHost") -> tuple[int | None, str | None]:
    """The latest change of a vCPU's state, and the vCPU."""
    at = xen.layout.get("vcpu.runstate")
    found: tuple[int, str] | None = None
    if at is not None:
        vcpus = [
            (f"d{domain.id}v{vcpu.id}", vcpu.address)
            for domain in xen.domains()
            for vcpu in domain.vcpus
        ]
        vcpus += [(f"pCPU {one.number}'s vCPU", one.vcpu) for one in xen.pcpus]
        for name, address in vcpus:
            # int state; uint64_t state_entry_time.
            since = None if address is None else xen.memory.number(address + at + 8, 8)
            if since is not None and since < 1 << 63 and (found is None or since > found[0]):
                found = since, name
    return (None, None) if found is None else (found[0], f"runstate of {found[1]}")


class _Reader:
    def __init__(self, xen: "XenHost") -> None:
        self._xen = xen
        self._memory: XenMemory = xen.memory
        symbols = xen.symbols
        if symbols is None:
            raise AbsentError(f"{xen.dump.path}: timers need Xen's symbols. Try: --xen-syms")
        self._symbols: Symbols = symbols
        self._warnings: list[str] = []

    def read(self, time: int | None, time_by: str | None) -> Timers:
        areas = self._areas()
        offsets = self._offsets(list(areas.values()))
        rows = [PcpuTimers(pcpu, self._timers(pcpu, at, offsets)) for pcpu, at in areas.items()]
        problems = [
            f"pCPU {row.pcpu}: timer {one.address:#x}: {one.problem}"
            for row in rows
            for one in row.timers
            if one.problem is not None
        ]
        self._warnings += listed(problems, "timers are damaged")
        return Timers(time, time_by, rows, self._warnings)

    def _areas(self) -> dict[int, int]:
        """The ``struct timers`` of each pCPU with notes."""
        variable = self._symbols.get("per_cpu__timers")
        offsets = self._symbols.all("__per_cpu_offset")
        if variable is None or len(offsets) != 1:
            raise AbsentError("Xen's symbols have no per_cpu__timers or no __per_cpu_offset")
        found: dict[int, int] = {}
        for number in sorted({pcpu.number for pcpu in self._xen.pcpus}):
            offset = None
            if 0 <= number < MAX_PCPUS:
                offset = self._memory.pointer(offsets[0].address + number * 8)
            at = None if offset is None else variable + offset & (1 << 64) - 1
            if at is None or not self._memory.is_xen(at):
                self._warnings.append(f"pCPU {number}: its per-CPU area is not known")
                continue
            found[number] = at
        if not found:
            raise AbsentError("no per-CPU area of a pCPU is known")
        return found

    def _offsets(self, areas: list[int]) -> _Offsets:
        """The members, by DWARF or the place where every pCPU has a heap."""
        try:
            structs = self._xen.structs
            heap, list_, running = (
                structs.member(f"timers.{name}").offset for name in ("heap", "list", "running")
            )
        except AbsentError:
            pass
        else:
            return _Offsets(heap, list_, running)
        for at in _HEAPS:
            sizes = [size for area in areas if (size := self._proved(area + at)) is not None]
            if len(sizes) == len(areas) and any(sizes):
                self._warnings.append(
                    f"timers: no debug information of Xen: the layout is inferred: {sum(sizes)} "
                    "timers form heaps, and functions are their handlers"
                )
                return _Offsets(at, at + 8, at + 16)
        raise AbsentError(
            "timers: no debug information of Xen, and no offset in struct timers leads to a "
            "heap on every pCPU"
        )

    def _proved(self, at: int) -> int | None:
        """The number of timers if a pointer leads to a heap of them, else None."""
        heap = self._memory.pointer(at) or 0
        if heap % 8 or not self._memory.is_xen(heap):
            return None
        timers, problem = self._heap(heap)
        if problem is not None or any(one.problem is not None for one in timers):
            return None
        # Handlers are functions.
        return None if any(one.symbol is None or one.offset for one in timers) else len(timers)

    def _timers(self, pcpu: int, at: int, offsets: _Offsets) -> list[Timer]:
        heap = self._memory.pointer(at + offsets.heap)
        found: list[Timer] = []
        if not heap or heap % 8 or not self._memory.is_xen(heap):
            self._warnings.append(f"pCPU {pcpu}: its heap of timers cannot be read")
        else:
            found, problem = self._heap(heap)
            if problem is not None:
                self._warnings.append(f"pCPU {pcpu}: {problem}")
        found += self._list(pcpu, self._memory.pointer(at + offsets.list))
        running = self._memory.pointer(at + offsets.running)
        one = self._timer(running, "running") if running else None
        if one is not None:
            found.append(one)
        checked = (self._checked(pcpu, one) for one in found)
        return sorted(checked, key=lambda one: (one.expires, one.address))

    def _checked(self, pcpu: int, one: Timer) -> Timer:
        """A timer with its problem if it is another pCPU's."""
        cpu = self._memory.number(one.address + _CPU, 2)
        if one.problem is not None or cpu == pcpu:
            return one
        return one._replace(problem=f"it is of pCPU {cpu}")

    def _heap(self, heap: int) -> tuple[list[Timer], str | None]:
        """The timers of a heap, whose entry 0 has its size and its limit, and what is wrong."""
        first = self._memory.number(heap, 4) or 0
        size, limit = first & 0xFFFF, first >> 16
        if size > limit:
            return [], f"its heap of timers is damaged: {size} of {limit} entries are in use"
        data = self._memory.read(heap, (size + 1) * 8)
        if data is None:
            return [], f"its heap of {size} timers cannot be read"
        found: list[Timer] = []
        by_place: dict[int, int] = {}
        lost = 0
        for place, address in enumerate(self._memory.split(data)):
            if place == 0:
                continue
            one = self._timer(address, "heap")
            if one is None:
                lost += 1
                continue
            by_place[place] = one.expires
            if self._memory.number(address + _PLACE, 4) != place:
                one = one._replace(problem=f"it is not at its place in the heap, {place}")
            elif by_place.get(place // 2, one.expires) > one.expires:
                one = one._replace(problem="it expires before the timer above it in the heap")
            found.append(one)
        return found, f"{lost} of {size} timers in its heap cannot be read" if lost else None

    def _list(self, pcpu: int, at: int | None) -> Iterator[Timer]:
        """The timers in the list for what the heap has no place for."""
        seen: set[int] = set()
        while at:
            one = self._timer(at, "list") if at not in seen else None
            if one is None or len(seen) == MAX_XEN_LIST:
                self._warnings.append(f"pCPU {pcpu}: its list of timers is damaged at {at:#x}")
                return
            seen.add(at)
            yield one
            at = self._memory.pointer(at + _PLACE)

    def _timer(self, address: int, where: str) -> Timer | None:
        """The timer at an address; None if there is none that can be read."""
        if address % 8 or not self._memory.is_xen(address):
            return None
        data = self._memory.read(address, _SIZE)
        if data is None:
            return None

        def number(at: int) -> int:
            return int.from_bytes(data[at : at + 8], "little")

        function = number(_FUNCTION)
        symbol = self._symbols.lookup(function) if self._memory.is_xen(function) else None
        expires = number(_EXPIRES)
        problem = None
        status = data[_STATUS]
        if (where, status) not in (("heap", _IN_HEAP), ("list", _IN_LIST)) and where != "running":
            problem = f"its status {status} is not that of a timer in a {where}"
        return Timer(
            address,
            expires - (1 << 64) if expires >> 63 else expires,
            function,
            None if symbol is None else symbol.name,
            0 if symbol is None else function - symbol.address,
            number(_DATA),
            where,
            problem,
        )
