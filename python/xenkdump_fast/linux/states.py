"""The states of tasks, whose bits have moved from version to version."""

from typing import NamedTuple

from .._native import AbsentError
from .kernel import Kernel
from .tasks import Task

#: What task_state_array (fs/proc/array.c) calls the states, and the name that each has here.
_WORDS = {
    "running": "running",
    "sleeping": "interruptible",
    "disk sleep": "uninterruptible",
    "stopped": "stopped",
    "tracing stop": "traced",
    "dead": "dead",
    "zombie": "zombie",
    "parked": "parked",
}
#: More states than any version lists.
MAX_STATES = 16


class States(NamedTuple):
    """The bits of ``__state`` and ``exit_state``; 0 where the version has no such state."""

    interruptible: int = 1
    uninterruptible: int = 2
    stopped: int = 4
    traced: int = 8
    # 3.14 (ad86622b478e) swapped zombie and dead.
    dead: int = 0x10
    zombie: int = 0x20
    # 4.14 (8ef9925b02c2 and its neighbours) moved these down and up.
    parked: int = 0x40
    waking: int = 0x200
    # 4.2 (80ed87c8a9ca): sleeps uninterruptibly, but is no load. 4.8 (7dc603c9028e): new.
    noload: int = 0x400
    new: int = 0x800


def of(kernel: Kernel) -> States:
    """The states of a kernel: by its own list of their names, else by its version."""
    try:
        bits = _listed(kernel)
    except AbsentError:
        bits = {}
    if not {"interruptible", "uninterruptible", "zombie"} <= bits.keys():
        version = kernel.version
        if not version or version >= (4, 14):
            return States()
        bits = {} if version >= (3, 14) else {"zombie": 0x10, "dead": 0x20}
    elif "parked" in bits:
        return States(**bits)
    # Before 4.14 the list ends with dead: 3.9 to 4.13 have 512 for parked, 2.6.32 on 256 for
    # waking, none of which another state had before.
    return States(**bits, parked=0x200, waking=0x100)


def _listed(kernel: Kernel) -> dict[str, int]:
    """Names and bits out of task_state_array: ``"S (sleeping)"`` and so on, from bit 0 up."""
    array = kernel.symbol("task_state_array")
    found: dict[str, int] = {}
    for i in range(MAX_STATES):
        try:
            text = kernel.string(kernel.pointer(array + i * kernel.word), 32)
        except AbsentError:
            break
        name = _WORDS.get(text[3:-1]) if text[1:3] == " (" and text.endswith(")") else None
        if name is None:
            break
        # Before 4.14 "T" was both kinds of stop, told apart by these words alone; a second
        # "dead" is TASK_DEAD (2.6.33 to 4.13), which the first is kept for.
        if name != "running":
            found.setdefault(name, 1 << (i - 1))
    return found


def letters(task: Task, states: States) -> str:
    """The two letters that crash shows for a task's state."""
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
    if found == "??" and state & states.dead:
        found = "DE"
    for bit, name in ((states.parked, "PA"), (states.waking, "WA"), (states.new, "NE")):
        if state == bit:
            found = name
    return found


def is_zombie(task: Task, states: States) -> bool:
    """Whether a task has exited and waits for its parent to take notice."""
    return bool(((task.state or 0) | task.exit_state) & states.zombie)
