"""What a task waits for: the object with the list of waiters, and its owner."""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from ..._native import AbsentError
from .. import percpu
from ..kernel import Kernel
from ..tasks import Task
from .rings import Rings, Waiter

#: mutex.owner: WAITERS, HANDOFF, PICKUP (4.10, 3ca0ff571b09); rw_semaphore.owner: READER_OWNED and
#: up to two NONSPINNABLE (5.3, 94a9717b3c40). task_structs are aligned.
_FLAGS = 7
_READER = 1
#: Low bits of task_struct.blocker, which say what kind of lock it is (6.16).
_BLOCKER_TYPE = 3
#: rw_semaphore.count: a writer holds it (5.3, 64489e78004c).
_WRITER_LOCKED = 1
#: The names of the structs, by kind, in which a list of waiters is, and the paths of the list.
_OBJECTS = {
    "mutex": ("mutex", ("wait_list",)),
    "rwsem": ("rw_semaphore", ("wait_list",)),
    "semaphore": ("semaphore", ("wait_list",)),
    "completion": ("completion", ("wait.task_list", "wait.head")),
}
#: Structs around a wait queue entry, by the function that wakes it.
_PAGE_WAIT, _BIT_WAIT = "wake_page_function", "wake_bit_function"
_PERCPU_WAIT = "percpu_rwsem_wake_function"
_PERCPU = "percpu_rw_semaphore"


class Owner(NamedTuple):
    """The task that has to act first."""

    task: Task
    #: The member that says so.
    by: str
    #: Why it need not be the owner; None if it is.
    doubt: str | None = None


class Object(NamedTuple):
    """What a task waits for."""

    #: ``mutex``, ``rw_semaphore``, ``completion``, ``folio``, ...: the name of its type.
    type: str
    address: int
    #: What it says besides: the bit of a folio, for instance.
    detail: str | None
    owner: Owner | None
    #: The number of tasks and others that wait for it; None if it is not known.
    waiters: int | None


class Locks:
    """Identifies objects by the waiters in their lists."""

    def __init__(self, kernel: Kernel, rings: Rings, tasks: Mapping[int, Task]) -> None:
        """``tasks`` are all tasks by their addresses."""
        self._kernel = kernel
        self._rings = rings
        self._tasks = tasks
        #: The tasks in the lists of objects.
        self._queues: dict[int, list[Task]] = {}

    def by_list(self, kind: str, task: Task, stack: bytes, waiter: Waiter) -> Object | None:
        """The object of a kind whose list of waiters this one is in; None if it is not certain."""
        ring = waiter.ring
        if ring.problem is not None:
            return None
        type_, paths = _OBJECTS[kind]
        kernel = self._kernel
        if ring.head is None:
            candidates = self._headless(type_, task, stack, waiter)
        else:
            candidates = [
                kernel.containing(ring.head, kernel.offset(f"{type_}.{path}"))
                for path in paths
                if kernel.has(f"{type_}.{path}")
            ]
        for address in candidates:
            with suppress(AbsentError):
                owner = self._owner(type_, address)
                if type_ == "semaphore":
                    self._queues[address] = self._rings.tasks(waiter)
                return Object(type_, address, None, owner, len(ring.waiters))
        return None

    def _headless(self, type_: str, task: Task, stack: bytes, waiter: Waiter) -> list[int]:
        """The lock that links to its waiters by ``first_waiter``; empty if it is not certain."""
        kernel, key = self._kernel, f"{type_}.first_waiter"
        if not kernel.has(key):
            return []
        for member, flags in (
            ("task_struct.blocked_on", 0),
            ("task_struct.blocker", _BLOCKER_TYPE),
        ):
            with suppress(AbsentError):
                address = kernel.read(task.address, member) & ~flags
                if address and kernel.read(address, key) in waiter.ring.waiters:
                    return [address]
        found = self._rings.pointed_to(task, stack, waiter, kernel.offset(key))
        return found if len(found) == 1 else []

    def _owner(self, type_: str, address: int) -> Owner | None:
        """The owner of a lock; AbsentError if this is no lock, because its owner is no task."""
        kernel = self._kernel
        if type_ == "semaphore":
            return self._last_holder(address)
        key = f"{type_}.owner"
        if type_ not in ("mutex", "rw_semaphore") or not kernel.has(key):
            return None
        value = kernel.read(address, key) & kernel.last
        found = value & ~_FLAGS
        if not found:
            return None
        if found not in self._tasks:
            # A reader that has exited may still be named.
            if type_ == "rw_semaphore" and value & _READER:
                return None
            raise AbsentError(f"the owner of the {type_} at {address:#x} is no task")
        doubt = None
        if type_ == "rw_semaphore":
            doubt = self._reader(address, value)
        return Owner(self._tasks[found], key, doubt)

    def _reader(self, address: int, owner: int) -> str | None:
        if owner & _READER:
            return "the last reader that is known, which may have released it"
        if self._kernel.version >= (5, 3):
            count = self._kernel.read(address, "rw_semaphore.count")
            if not count & _WRITER_LOCKED:
                return "no writer holds it now"
        return None

    def _last_holder(self, address: int) -> Owner | None:
        """The last task that took a semaphore (6.16, if the build records it)."""
        key = "semaphore.last_holder"
        if not self._kernel.has(key):
            return None
        task = self._tasks.get(self._kernel.read(address, key) & self._kernel.last)
        doubt = "the last that took it: another task may release it"
        return None if task is None else Owner(task, key, doubt)

    def queue(self, found: Object) -> tuple[Task, ...]:
        """The tasks that wait for an object in its list, in no order."""
        return tuple(self._queues.get(found.address, ()))

    def bio(self, task: Task, stack: bytes, completion: int, end: str) -> int | None:
        """The bio whose end, by the function ``end``, completes a completion; None without one."""
        kernel = self._kernel
        offset = kernel.offset("bio.bi_private")
        found = self._rings.targets(task, stack, offset, completion, on_stack=True)
        for address in found:
            with suppress(AbsentError):
                function = kernel.read(address, "bio.bi_end_io")
                symbol = kernel.code.lookup(function)
                if symbol is not None and (symbol.address, symbol.name) == (function, end):
                    return address
        return None

    def percpu_writer(self, task: Task, stack: bytes) -> Object | None:
        """The percpu_rw_semaphore whose readers a writer waits for; None if it is not certain."""
        key = f"{_PERCPU}.writer.task"
        if not self._kernel.has(key):
            return None
        offset = self._kernel.offset(key)
        found = self._rings.targets(task, stack, offset, task.address)
        if len(found) != 1:
            return None
        return Object(_PERCPU, found[0], self._readers(found[0]), None, None)

    def _readers(self, address: int) -> str | None:
        """How many readers hold a percpu_rw_semaphore: their counters on all CPUs add up."""
        kernel, total = self._kernel, 0
        with suppress(AbsentError):
            variable = kernel.read(address, f"{_PERCPU}.read_count")
            for cpu in percpu.areas(kernel):
                total += kernel.number(percpu.shifted(kernel, variable, cpu), 4)
            # A reader may leave on another CPU than it came on.
            total = (total + (1 << 31)) % (1 << 32) - (1 << 31)
            return f"{total} reader{'' if total == 1 else 's'}, which are not recorded"
        return None

    def _percpu(self, waiter: Waiter) -> Object | None:
        """The percpu_rw_semaphore that a task waits for in its queue (5.7, 7f26482a872c)."""
        kernel, head = self._kernel, waiter.ring.head
        if head is None:
            return None
        address = kernel.containing(head, kernel.offset(f"{_PERCPU}.waiters.head"))
        owner, detail = None, None
        value = kernel.read(address, f"{_PERCPU}.writer.task")
        if value:
            task = self._tasks.get(value)
            if task is None:
                return None
            owner = Owner(task, f"{_PERCPU}.writer")
        elif kernel.read(address, f"{_PERCPU}.block.counter"):
            detail = "a writer holds it, which is not recorded"
        return Object(_PERCPU, address, detail, owner, len(waiter.ring.waiters))

    def rt_mutex(self, task: Task) -> Object | None:
        """The rt_mutex that a task waits for, by ``pi_blocked_on``."""
        kernel = self._kernel
        with suppress(AbsentError):
            waiter = kernel.read(task.address, "task_struct.pi_blocked_on")
            if not waiter or kernel.read(waiter, "rt_mutex_waiter.task") != task.address:
                return None
            lock = kernel.read(waiter, "rt_mutex_waiter.lock")
            # 5.16 (830e6acc8a1c) moved the members to rt_mutex_base.
            type_ = "rt_mutex_base" if kernel.has("rt_mutex_base.owner") else "rt_mutex"
            value = kernel.read(lock, f"{type_}.owner")
            owner = self._tasks.get(value & ~1)
            if owner is None and value & ~1:
                return None
            by = f"{type_}.owner"
            return Object(type_, lock, None, None if owner is None else Owner(owner, by), None)
        return None

    def by_queue(self, waiter: Waiter) -> Object | None:
        """The folio, the word with a bit, or else the wait queue; None if it is not certain."""
        kernel, ring = self._kernel, waiter.ring
        if ring.problem is not None or ring.head is None or waiter.layout.function is None:
            return None
        with suppress(AbsentError):
            function = kernel.pointer(waiter.address + waiter.layout.function)
            symbol = kernel.code.lookup(function)
            name = "" if symbol is None or symbol.address != function else symbol.name
            if name == _PAGE_WAIT:
                return self._folio(waiter)
            if name == _BIT_WAIT:
                return self._bit(waiter)
            if name == _PERCPU_WAIT:
                return self._percpu(waiter)
        start = "wait_queue_head" if "wait_queue_head" in kernel.types else "__wait_queue_head"
        for path in ("head", "task_list"):
            if kernel.has(f"{start}.{path}"):
                address = kernel.containing(ring.head, kernel.offset(f"{start}.{path}"))
                return Object(start, address, None, None, len(ring.waiters))
        return None

    def _folio(self, waiter: Waiter) -> Object:
        kernel = self._kernel
        start = kernel.containing(waiter.address, kernel.offset("wait_page_queue.wait"))
        # 5.16 (ffdc8dabf20c) waits for folios.
        type_ = "folio" if kernel.has("wait_page_queue.folio") else "page"
        address = kernel.read(start, f"wait_page_queue.{type_}")
        bit = kernel.read(start, "wait_page_queue.bit_nr")
        return Object(type_, address, self._flag(bit), None, None)

    def _flag(self, bit: int) -> str:
        native = self._kernel.types.native
        with suppress(AbsentError):
            if native is not None:
                for name, value in native.enum("pageflags").items():
                    if value == bit:
                        return name
        return f"bit {bit}"

    def _bit(self, waiter: Waiter) -> Object:
        kernel = self._kernel
        start = kernel.containing(waiter.address, kernel.offset("wait_bit_queue_entry.wq_entry"))
        address = kernel.read(start, "wait_bit_queue_entry.key.flags")
        bit = kernel.read(start, "wait_bit_queue_entry.key.bit_nr")
        return Object("unsigned long", address, f"bit {bit}", None, None)
