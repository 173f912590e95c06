"""The states of tasks, whose bits depend on the version."""

from .._native import AbsentError
from .._typing import NamedTuple
from ..limits import MAX_TASK_STATES
from .kernel import Kernel
from .tasks import Task

#: Names of states in task_state_array (fs/proc/array.c), and in ``States``.
_NAMES = {
    "running": "running",
    "sleeping": "interruptible",
    "disk sleep": "uninterruptible",
    "stopped": "stopped",
    "tracing stop": "traced",
    "dead": "dead",
    "zombie": "zombie",
    "parked": "parked",
}


#: The two letters of every state, as ``letters`` gives them.
LETTERS = ("RU", "IN", "UN", "ID", "ZO", "ST", "TR", "DE", "PA", "WA", "NE", "??")


class States(NamedTuple):
    """The bits of ``__state`` and ``exit_state``; 0 if the version has no such state."""

    interruptible: int = 1
    uninterruptible: int = 2
    stopped: int = 4
    traced: int = 8
    # 3.14 (ad86622b478e) swapped zombie and dead.
    dead: int = 0x10
    zombie: int = 0x20
    # 4.14 (8ef9925b02c2 and related commits) moved these.
    parked: int = 0x40
    waking: int = 0x200
    # 4.2 (80ed87c8a9ca): uninterruptible, but not counted as load. 4.8 (7dc603c9028e): new.
    noload: int = 0x400
    new: int = 0x800
    # In __state until the task is freed: the last state that it sets. Its exit_state is set before.
    task_dead: int = 0x80
    # 5.15 (25795ef6299f) and 6.1 (f5d39b020809). Earlier versions do not use these bits.
    rtlock_wait: int = 0x1000
    frozen: int = 0x8000


def of(kernel: Kernel) -> States:
    """The states of a kernel: by its table of their names, else by its version."""
    try:
        bits = _from_array(kernel)
    except AbsentError:
        bits = {}
    if not {"interruptible", "uninterruptible", "zombie"} <= bits.keys():
        version = kernel.version
        if not version or version >= (4, 14):
            return States()
        bits = {} if version >= (3, 14) else {"zombie": 0x10, "dead": 0x20}
    elif "parked" in bits:
        return States(**bits)
    # Before 4.14 the table ends with dead: 3.9 to 4.13 have 512 for parked, 2.6.32 to 4.13 have 256
    # for waking. Earlier versions use neither bit. TASK_DEAD is 64 since 2.6.25, where
    # 128 is TASK_WAKEKILL, and 128 before; 2.6.18 and earlier do not have it.
    version = kernel.version
    task_dead = 0x80 if version and version < (2, 6, 25) else 0x40
    return States(**bits, parked=0x200, waking=0x100, task_dead=task_dead)


def _from_array(kernel: Kernel) -> dict[str, int]:
    """Names and bits from task_state_array: ``"S (sleeping)"`` and so on, from bit 0 up."""
    array = kernel.symbol("task_state_array")
    found: dict[str, int] = {}
    for i in range(MAX_TASK_STATES):
        try:
            text = kernel.string(kernel.pointer(array + i * kernel.word), 32)
        except AbsentError:
            break
        name = _NAMES.get(text[3:-1]) if text[1:3] == " (" and text.endswith(")") else None
        if name is None:
            break
        # Before 4.14 both kinds of stop were "T". A second "dead" is TASK_DEAD (2.6.33 to 4.13):
        # keep the first.
        if name != "running":
            found.setdefault(name, 1 << (i - 1))
    return found


def letters(task: Task, states: States) -> str:
    """The two letters that crash prints for a task's state."""
    if task.state is None:
        return "??"
    state = task.state | task.exit_state
    found = "RU" if state == 0 else "??"
    if state & states.interruptible:
        found = "IN"
    if state & states.uninterruptible:
        found = "ID" if state & states.noload else "UN"
    for bit, name in ((states.zombie, "ZO"), (states.stopped, "ST"), (states.traced, "TR")):
        if state & bit:
            found = name
    if found == "??" and state & (states.dead | states.task_dead):
        found = "DE"
    # As task_state_index() reports both: uninterruptible.
    if found == "??" and state & (states.rtlock_wait | states.frozen):
        found = "UN"
    for bit, name in ((states.parked, "PA"), (states.waking, "WA"), (states.new, "NE")):
        if state == bit:
            found = name
    return found


def is_zombie(task: Task, states: States) -> bool:
    """Whether a task has exited and was not yet reaped by its parent."""
    return bool(((task.state or 0) | task.exit_state) & states.zombie)
