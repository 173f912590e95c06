"""What tasks wait for, and which tasks own it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from ..._native import AbsentError, Frame
from ...budget import Budget, BudgetExceededError
from ...limits import MAX_WAITS_READ
from ..backtrace import Trace
from ..kernel import Kernel
from ..structs import Structs, batches
from ..tasks import Task
from . import devices, rcu, xen
from .devices import Device
from .functions import Wait, wait_of
from .locks import Locks, Object, Owner
from .rcu import GracePeriod
from .rings import Rings
from .xen import EventChannel

#: The structs by which a task waits, by the kind of the wait.
_WAITERS = {
    "mutex": ("mutex_waiter",),
    "rwsem": ("rwsem_waiter",),
    "semaphore": ("semaphore_waiter",),
    # A swait queue since 5.7 (a5c6234e1028).
    "completion": ("swait_queue", "wait_queue_entry", "__wait_queue"),
}
_QUEUES = ("wait_queue_entry", "__wait_queue")
#: The function that ends a wait for a bio, and those on the stack that wait for a buffer.
_BIO_END, _BUFFER = "submit_bio_wait_endio", "wait_on_buffer"


class About(NamedTuple):
    """What else is known of a wait."""

    #: What it does I/O on.
    device: Device | None = None
    #: Of a wait for RCU.
    grace_period: GracePeriod | None = None
    #: By which another domain will end it.
    channel: EventChannel | None = None
    #: The tasks in the queue of a semaphore, which has no owner.
    queue: tuple[Task, ...] = ()


class Waiting(NamedTuple):
    """What one task waits for."""

    task: Task
    #: What the functions on its stack say.
    wait: Wait
    #: The object, if the task is in its list of waiters; None if only the functions are known.
    object: Object | None
    about: About = About()


class Waits:
    """What tasks wait for. Each task is examined once."""

    def __init__(
        self, kernel: Kernel, tasks: Sequence[Task], trace: Callable[[Task], Trace]
    ) -> None:
        """``tasks`` are all tasks, ``trace`` unwinds one."""
        self._kernel = kernel
        self._trace = trace
        self._all = tasks
        self._tasks = {task.address: task for task in tasks}
        self._rings = Rings(kernel, self._tasks)
        self._locks = Locks(kernel, self._rings, self._tasks)
        self._known: dict[int, Waiting] = {}
        self._periods: dict[bool, GracePeriod | None] = {}
        self._budget = Budget("lists of waiters", MAX_WAITS_READ)

    def of(self, tasks: Iterable[Task]) -> list[Waiting]:
        """What these tasks wait for; ``with_owners`` adds what their owners wait for."""
        if self._kernel.types.native is None:
            self._kernel.warn("no type information: only the functions that wait are known")
        return [self._one(task) for task in tasks]

    def with_owners(self, first: Iterable[Waiting]) -> Mapping[int, Waiting]:
        """These, and the tasks that they wait for, by address, in all chains."""
        found: dict[int, Waiting] = {}
        for waiting in first:
            current = waiting
            while current.task.address not in found:
                found[current.task.address] = current
                owner = owner_of(current)
                if owner is None:
                    break
                current = self._one(owner.task)
        return found

    def _one(self, task: Task) -> Waiting:
        known = self._known.get(task.address)
        if known is None:
            known = self._known[task.address] = self._look(task)
        return known

    def _look(self, task: Task) -> Waiting:
        frames = self._trace(task).frames
        if task.active:
            # Its stack may have a wait that it has just ended.
            return Waiting(task, Wait(None, None, None, True), None)
        wait = wait_of(frames)
        found, about = None, About()
        if not frames:
            return Waiting(task, wait, None)
        try:
            with self._kernel.charging(self._budget):
                found = self._object(task, wait, frames[0].sp)
                found, about = self._more(task, wait, frames, found)
        except BudgetExceededError:
            self._kernel.warn(f"task {task.pid}: its list of waiters is too long")
        except AbsentError as error:
            self._kernel.warn(f"task {task.pid}: its stack cannot be searched: {error}")
        return Waiting(task, wait, found, about)

    def _stack(self, task: Task, sp: int) -> bytes:
        """The part of a stack that is in use; empty if ``sp`` is not in it."""
        end = self._kernel.end(task.stack, self._kernel.stack_size)
        return self._kernel.data(sp, end - sp) if task.stack <= sp < end else b""

    def _more(
        self, task: Task, wait: Wait, frames: Sequence[Frame], found: Object | None
    ) -> tuple[Object | None, About]:
        """The owner of an object that is no lock; the device or domain that ends the wait."""
        kernel, about = self._kernel, About()
        expedited = rcu.waits(frames)
        if expedited is not None:
            period = self._grace_period(expedited)
            if period is not None:
                about = about._replace(grace_period=period)
                owner = rcu.owner(period, self._running)
                if found is None:
                    found = Object("rcu_state", period.address, None, owner, None)
                elif found.owner is None:
                    found = found._replace(owner=owner)
        if found is not None and found.type == "semaphore":
            about = about._replace(queue=self._locks.queue(found))
        device = self._device(task, frames, found)
        channel = None
        if device is not None and device.address is not None:
            channel = xen.of_disk(kernel, device.address)
        elif wait.area == "xenbus":
            channel = xen.of_xenstore(kernel)
        return found, about._replace(device=device, channel=channel)

    def _device(self, task: Task, frames: Sequence[Frame], found: Object | None) -> Device | None:
        kernel = self._kernel
        if found is None:
            return None
        if found.type in ("folio", "page"):
            return devices.of_folio(kernel, found.address, found.type)
        if found.type == "unsigned long":
            names = [frame.symbol or "" for frame in frames if not frame.user]
            if any(_BUFFER in name for name in names):
                return devices.of_buffer(kernel, found.address)
        if found.type == "completion" and kernel.has("bio.bi_private"):
            sp = frames[0].sp - frames[0].sp % kernel.word
            bio = self._locks.bio(task, self._stack(task, sp), found.address, _BIO_END)
            return None if bio is None else devices.of_bio(kernel, bio)
        return None

    def _grace_period(self, expedited: bool) -> GracePeriod | None:
        if expedited not in self._periods:
            try:
                found = rcu.grace_period(self._kernel, self._tasks, expedited=expedited)
            except AbsentError as error:
                self._kernel.warn(f"who holds the grace period of RCU is not known: {error}")
                self._periods[expedited] = None
            else:
                self._periods[expedited] = found
        return self._periods[expedited]

    @cached_property
    def _running(self) -> Mapping[int, Task]:
        """The tasks that run, by their CPUs."""
        return {task.cpu: task for task in self._all if task.active}

    def _object(self, task: Task, wait: Wait, sp: int) -> Object | None:
        kernel, kind = self._kernel, wait.kind
        if kind in ("rtmutex", None):
            found = self._locks.rt_mutex(task)
            if found is not None or kind == "rtmutex":
                return found
        end = kernel.end(task.stack, kernel.stack_size)
        if not task.stack <= sp < end:
            return None
        sp -= sp % kernel.word
        stack = kernel.data(sp, end - sp)
        if kind == "percpu-rwsem":
            found = self._locks.percpu_writer(task, stack)
            if found is not None:
                return found
        for waiter in self._rings.waiters(task, stack, sp, _WAITERS.get(kind or "", ())):
            assert kind is not None
            found = self._locks.by_list(kind, task, stack, waiter)
            if found is not None:
                if kind == "completion":
                    found = found._replace(owner=self._vfork.get(found.address))
                return found
        if kind in _WAITERS:
            return None
        for waiter in self._rings.waiters(task, stack, sp, _QUEUES):
            found = self._locks.by_queue(waiter)
            if found is not None:
                return found
        return None

    @cached_property
    def _vfork(self) -> Mapping[int, Owner]:
        """Children by vfork(), by the completion that their parents wait for."""
        key = "task_struct.vfork_done"
        found = {}
        if self._kernel.has(key):
            for batch in batches(self._all):
                structs = Structs(self._kernel, [task.address for task in batch], [key])
                for task in batch:
                    with suppress(AbsentError):
                        found[structs.read(task.address, key)] = Owner(task, key)
        found.pop(0, None)
        return found


def owner_of(waiting: Waiting) -> Owner | None:
    """The task that another one waits for."""
    return None if waiting.object is None else waiting.object.owner


def chain(waiting: Waiting, known: Mapping[int, Waiting]) -> list[Waiting]:
    """A task, the task that it waits for, and so on, up to the first repeated one."""
    found: dict[int, Waiting] = {}
    current: Waiting | None = waiting
    while current is not None and current.task.address not in found:
        found[current.task.address] = current
        owner = owner_of(current)
        current = None if owner is None else known.get(owner.task.address)
    return list(found.values())


def cycles(known: Mapping[int, Waiting]) -> list[list[Waiting]]:
    """Tasks that wait for each other; each cycle once, the lowest pid first.

    Only owners without doubt count.
    """
    finished: set[int] = set()
    found = []
    for start in known:
        path: dict[int, Waiting] = {}
        at: int | None = start
        while at is not None and at not in finished and at not in path:
            path[at] = known[at]
            owner = owner_of(path[at])
            at = None
            if owner is not None and owner.doubt is None and owner.task.address in known:
                at = owner.task.address
        if at is not None and at in path:
            every = list(path)
            members = [path[address] for address in every[every.index(at) :]]
            pids = [(one.task.pid, one.task.address) for one in members]
            first = pids.index(min(pids))
            found.append(members[first:] + members[:first])
        finished.update(path)
    return sorted(found, key=lambda cycle: (cycle[0].task.pid, cycle[0].task.address))
