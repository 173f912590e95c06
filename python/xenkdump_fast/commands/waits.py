"""``waits``: what uninterruptible tasks wait for, who owns it, and deadlocks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from .._native import AbsentError
from .._typing import NamedTuple, NotRequired, TypedDict
from ..limits import MAX_EVENT_CHANNEL_READS
from ..linux import states
from ..linux.backtrace import Trace
from ..linux.states import States
from ..linux.system import Linux
from ..linux.tasks import Task
from ..linux.waits import graph
from ..linux.waits.graph import Waiting, Waits
from ..linux.waits.locks import Object, Owner
from ..linux.waits.xen import EventChannel
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..progress import each
from ..session import Domain
from . import addresses
from .addresses import Program
from .contract import Operands
from .selection import Selection, select

OPERANDS = Operands(
    "PID|TASK|COMM",
    "a pid, a task's address in hex, or a command's name; by default every task in the state UN",
)
_STATE = "UN"
#: Tasks of a chain that the text names.
MAX_SHOWN = 16


class Options(NamedTuple):
    """The tasks to explain."""

    #: Pids, addresses or command names; uninterruptible tasks without any.
    operands: Sequence[str] = ()


def run(target: Domain, options: Options = Options()) -> "Found":
    """Finds what tasks wait for; AbsentError if no requested one exists."""
    kernel = target.kernel
    every = kernel.tasks()
    known = states.of(kernel)
    if options.operands:
        chosen = select(target, every, options.operands)
    else:
        chosen = Selection([t for t in every if states.letters(t, known) == _STATE], None)
    waits = Waits(kernel, every, _tracer(kernel, chosen.tasks))
    found = waits.of(each(chosen.tasks, "task"))
    everyone = waits.with_owners(found)
    warnings = () if found else (f"domain {target.id}: no task is in state {_STATE}",)
    program = addresses.program(target)
    ends = _other_ends(target, found)
    return Found(target.id, program, known, found, everyone, warnings, chosen.failure, ends)


def _other_ends(target: Domain, found: Sequence[Waiting]) -> dict[int, tuple[int, int]]:
    """The domains and ports at the other ends of ports, as Xen records them."""
    ports = {one.about.channel.port for one in found if one.about.channel is not None}
    if not ports or not target.dump.is_xen_host:
        return {}
    # Only if a task waits for another domain.
    from ..xen.event_channels import Reader

    with suppress(AbsentError):
        xen = target.dump.hypervisor
        reader = Reader(xen.channel_structs, {one.address: one.id for one in xen.domains()})
        with xen.memory.budget("event channels", MAX_EVENT_CHANNEL_READS):
            channels = reader.read(xen.domain(target.id)).channels
        return {
            one.port: (one.remote_domain, one.remote_port)
            for one in channels
            if one.port in ports
            and one.problem is None
            and one.remote_domain is not None
            and one.remote_port is not None
        }
    return {}


def _tracer(kernel: Linux, chosen: Sequence[Task]) -> Callable[[Task], Trace]:
    """Unwinds a stack. Saved registers of the chosen tasks are read together; owners are few."""
    together = kernel.tracer(chosen)
    addresses = {task.address for task in chosen}

    def trace(task: Task) -> Trace:
        return together(task) if task.address in addresses else kernel.backtrace(task)

    return trace


class TaskJson(TypedDict):
    """A task."""

    pid: int
    task: Hex
    cpu: Count
    comm: str
    state: str


class ObjectJson(TypedDict):
    """What a task waits for. ``symbol`` and ``offset`` if it is a variable."""

    type: str
    address: Hex
    symbol: NotRequired[str]
    offset: NotRequired[Count]
    detail: NotRequired[str]
    waiters: NotRequired[Count]


class OwnerJson(TaskJson):
    """The task that has to act first, ``by`` this member; ``doubt`` if it need not be so."""

    by: str
    doubt: NotRequired[str]


class GracePeriodJson(TypedDict):
    """A grace period of RCU, and the CPUs and tasks (by pid) that hold it."""

    sequence: int
    expedited: bool
    in_progress: bool
    cpus: list[Count]
    tasks: list[int]


class ChannelJson(TypedDict):
    """The event channel by which another domain ends a wait."""

    use: str
    port: Count
    remote_domain: Count | None
    remote_port: Count | None


class WaitJson(TaskJson):
    """A task and what it waits for. ``object`` only if it is in the list of waiters of that."""

    kind: str | None
    caller: str | None
    area: str | None
    guess: bool
    object: NotRequired[ObjectJson]
    owner: NotRequired[OwnerJson]
    device: NotRequired[str]
    grace_period: NotRequired[GracePeriodJson]
    channel: NotRequired[ChannelJson]
    waiting: NotRequired[list[int]]
    chain: list[int]


class JSON(TypedDict):
    """What ``waits --json`` prints. ``deadlocks`` are lists of pids, each waiting for the next."""

    domain: Count
    tasks: list[WaitJson]
    deadlocks: list[list[int]]


class Found(NamedTuple):
    """What tasks wait for."""

    domain: int
    program: Program
    states: States
    tasks: Sequence[Waiting]
    #: Those, and their owners in all chains.
    everyone: Mapping[int, Waiting]
    warnings: Sequence[str]
    failure: str | None
    #: Of event channels by their ports, as far as Xen's are known: domain and port.
    ends: Mapping[int, tuple[int, int]] = {}

    @property
    def deadlocks(self) -> list[list[Waiting]]:
        """Tasks that wait for each other."""
        return graph.cycles(self.everyone)

    def text(self) -> Iterator[str]:
        """The deadlocks, then each task with what it waits for."""
        for cycle in self.deadlocks:
            yield f"DEADLOCK: {' -> '.join(_names(cycle))} -> {cycle[0].task.pid}"
            for waiting in cycle:
                yield f"    {waiting.task.pid} waits for {self._what(waiting)}"
            yield ""
        for i, waiting in enumerate(self.tasks):
            if i:
                yield ""
            yield from self._task(waiting)

    def _task(self, waiting: Waiting) -> Iterator[str]:
        task = waiting.task
        yield (
            f"PID: {task.pid:<7}  TASK: {task.address:0{self.program.word * 2}x}  "
            f"CPU: {task.cpu:<3}  STATE: {states.letters(task, self.states)}  "
            f'COMMAND: "{visible(task.comm)}"'
        )
        yield f"    waits for: {self._what(waiting)}"
        where = [] if waiting.wait.caller is None else [visible(waiting.wait.caller)]
        if waiting.wait.area is not None:
            where.append(f"({waiting.wait.area})")
        if where:
            yield f"    in: {' '.join(where)}"
        yield from self._about(waiting)
        owner = graph.owner_of(waiting)
        if owner is not None:
            state = "running" if owner.task.active else states.letters(owner.task, self.states)
            doubt = "" if owner.doubt is None else f", {owner.doubt}"
            yield (
                f'    owner: {owner.task.pid} "{visible(owner.task.comm)}" ({state}; by '
                f"{owner.by}{doubt})"
            )
        chain = graph.chain(waiting, self.everyone)
        if len(chain) > 2:
            yield f"    chain: {' -> '.join(_names(chain))}"

    def _about(self, waiting: Waiting) -> Iterator[str]:
        about = waiting.about
        if about.device is not None:
            yield f"    device: {visible(about.device.text)}"
        if about.grace_period is not None:
            yield f"    RCU: {about.grace_period}"
        if about.channel is not None:
            domain, port = self._end(about.channel)
            end = "" if domain is None else f", domain {domain}"
            end += "" if port is None else f" port {port}"
            yield f"    event channel: port {about.channel.port} ({about.channel.use}){end}"
        if about.queue:
            shown = [f"{one.pid} ({visible(one.comm)})" for one in about.queue[:MAX_SHOWN]]
            more = len(about.queue) - len(shown)
            more_text = f", {more} more" if more else ""
            yield f"    waiting: {', '.join(shown)}{more_text}"
            if graph.owner_of(waiting) is None:
                yield "    owner: not recorded for semaphores"

    def _end(self, channel: EventChannel) -> tuple[int | None, int | None]:
        """The domain and the port at the other end."""
        return self.ends.get(channel.port, (channel.remote_domain, None))

    def _what(self, waiting: Waiting) -> str:
        found, wait = waiting.object, waiting.wait
        if found is None:
            if waiting.task.active:
                return "nothing: it was running"
            if wait.kind is None:
                return "not known"
            guess = "" if wait.reliable else ", which are guesses"
            return f"{wait.kind} (by its functions only{guess})"
        text = f"{found.type} {found.address:x}"
        label = self._label(found)
        if label is not None:
            name, offset = label
            text += f" <{visible(name)}+{offset}>" if offset else f" <{visible(name)}>"
        if found.detail is not None:
            text += f", {found.detail}"
        if found.waiters is not None:
            text += f", {found.waiters} waiting"
        return text if wait.reliable else f"{text} (guess)"

    def _label(self, found: Object) -> tuple[str, int] | None:
        return self.program.label(found.address)

    def json(self) -> JSON:
        """The tasks, and the pids of deadlocks."""
        return {
            "domain": self.domain,
            "tasks": [self._json(waiting) for waiting in self.tasks],
            "deadlocks": [[waiting.task.pid for waiting in cycle] for cycle in self.deadlocks],
        }

    def _json(self, waiting: Waiting) -> WaitJson:
        wait = waiting.wait
        found: WaitJson = {
            "pid": waiting.task.pid,
            "task": hex(waiting.task.address),
            "cpu": waiting.task.cpu,
            "comm": waiting.task.comm,
            "state": states.letters(waiting.task, self.states),
            "kind": wait.kind,
            "caller": wait.caller,
            "area": wait.area,
            "guess": not wait.reliable,
            "chain": [one.task.pid for one in graph.chain(waiting, self.everyone)],
        }
        if waiting.object is not None:
            found["object"] = self._object_json(waiting.object)
            if waiting.object.owner is not None:
                found["owner"] = self._owner_json(waiting.object.owner)
        about = waiting.about
        if about.device is not None:
            found["device"] = about.device.text
        if about.grace_period is not None:
            period = about.grace_period
            found["grace_period"] = {
                "sequence": period.sequence,
                "expedited": period.expedited,
                "in_progress": period.in_progress,
                "cpus": period.cpus,
                "tasks": [task.pid for task in period.tasks],
            }
        if about.channel is not None:
            domain, port = self._end(about.channel)
            found["channel"] = {
                "use": about.channel.use,
                "port": about.channel.port,
                "remote_domain": domain,
                "remote_port": port,
            }
        if about.queue:
            found["waiting"] = [task.pid for task in about.queue]
        return found

    def _object_json(self, one: Object) -> ObjectJson:
        found: ObjectJson = {"type": one.type, "address": hex(one.address)}
        label = self._label(one)
        if label is not None:
            found["symbol"], found["offset"] = label
        if one.detail is not None:
            found["detail"] = one.detail
        if one.waiters is not None:
            found["waiters"] = one.waiters
        return found

    def _owner_json(self, owner: Owner) -> OwnerJson:
        found: OwnerJson = {
            "pid": owner.task.pid,
            "task": hex(owner.task.address),
            "cpu": owner.task.cpu,
            "comm": owner.task.comm,
            "state": states.letters(owner.task, self.states),
            "by": owner.by,
        }
        if owner.doubt is not None:
            found["doubt"] = owner.doubt
        return found


def _names(chain: Sequence[Waiting]) -> list[str]:
    found = [f"{one.task.pid} ({visible(one.task.comm)})" for one in chain[:MAX_SHOWN]]
    if len(chain) > MAX_SHOWN:
        found.append(f"{len(chain) - MAX_SHOWN} more")
    return found
