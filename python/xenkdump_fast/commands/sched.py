"""``sched``: the run queues of Xen's scheduler."""

from collections.abc import Iterator

from .._typing import TYPE_CHECKING, NamedTuple, TypedDict
from ..output.escape import visible
from ..output.json_types import Count
from ..output.table import table
from ..session import DumpFile
from ..xen import run_queues
from ..xen.run_queues import RunQueue, Unit
from . import host_domains

if TYPE_CHECKING:
    from ..xen.host import XenHost

_HEAD = ("", "VCPU", "CREDIT", "WEIGHT", "PRIORITY")
#: Columns that are numbers.
_NUMBERS = (2, 3)


class Options(NamedTuple):
    """The sources of symbols."""

    #: Path of Xen's symbols, with DWARF.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False


add_options = host_domains.add_options


def run(target: DumpFile, options: Options = Options()) -> "RunQueues":
    """Lists the run queues; AbsentError without a Xen host, or without its layout."""
    return of_host(host_domains.host(target, options.xen_syms, force=options.force))


def of_host(xen: "XenHost") -> "RunQueues":
    """Lists the run queues of a host; AbsentError without its layout."""
    queues, warnings = run_queues.read(xen)
    return RunQueues(queues, [*xen.warnings, *warnings])


class UnitJson(TypedDict):
    """A vCPU as it is scheduled."""

    domain: Count | None
    vcpu: Count | None
    credit: int | None
    weight: Count | None
    priority: str | None


class RunningJson(TypedDict):
    """What a pCPU runs."""

    pcpu: Count
    unit: UnitJson | None


class QueueJson(TypedDict):
    """A run queue."""

    id: int
    scheduler: str
    load: int | None
    cpus: str | None
    running: list[RunningJson]
    waiting: list[UnitJson]
    problem: str | None


class JSON(TypedDict):
    """What ``sched --json`` prints."""

    run_queues: list[QueueJson]


class RunQueues(NamedTuple):
    """The run queues of a host."""

    queues: list[RunQueue]
    warnings: list[str]

    def text(self) -> Iterator[str]:
        """A table per run queue: what its pCPUs run, then what waits in its order."""
        for i, queue in enumerate(self.queues):
            if i:
                yield ""
            parts = [f"RUN QUEUE {queue.id}: {visible(queue.scheduler) or '?'}"]
            if queue.cpus is not None:
                parts.append(f"pCPUs {queue.cpus}")
            if queue.load is not None:
                parts.append(f"load {queue.load}")
            known = "" if queue.problem is None else " or more"
            parts.append(f"{len(queue.waiting)}{known} waiting")
            yield ", ".join(parts)
            rows = [_cells(f"pCPU {one.pcpu}", one.unit) for one in queue.running]
            rows += (_cells(f"waits {n}", unit) for n, unit in enumerate(queue.waiting, 1))
            yield from table([_HEAD, *rows], _NUMBERS)

    def json(self) -> JSON:
        """Every run queue."""
        return {
            "run_queues": [
                {
                    "id": queue.id,
                    "scheduler": queue.scheduler,
                    "load": queue.load,
                    "cpus": None if queue.cpus is None else str(queue.cpus),
                    "running": [
                        {"pcpu": one.pcpu, "unit": one.unit and _json(one.unit)}
                        for one in queue.running
                    ],
                    "waiting": [_json(unit) for unit in queue.waiting],
                    "problem": queue.problem,
                }
                for queue in self.queues
            ]
        }


def _cells(what: str, unit: Unit | None) -> tuple[str, ...]:
    if unit is None:
        return what, "-", "-", "-", "-"
    numbers = (unit.credit, unit.weight, unit.priority)
    return what, str(unit), *("-" if number is None else str(number) for number in numbers)


def _json(unit: Unit) -> UnitJson:
    return {
        "domain": unit.domain,
        "vcpu": unit.vcpu,
        "credit": unit.credit,
        "weight": unit.weight,
        "priority": unit.priority,
    }
