"""The stack of a fault in the memory of a kernel."""

from collections import deque
from collections.abc import Iterable, Sequence

from .._native import AbsentError, Frame
from ..isolation import isolated
from ..limits import MAX_LOG_LINES
from ..linux import panic, printk
from ..linux.system import Linux
from ..linux.tasks import Task
from . import log_text
from .log_text import Fault
from .normal_form import DEPTH, Function, Signature, relevant

#: Kinds by functions on a stack, for a kernel whose log is lost: the first that is there.
_KINDS = (
    ("sysrq", ("sysrq_handle_crash",)),
    ("hard-lockup", ("watchdog_overflow_callback", "watchdog_hardlockup_check")),
    ("soft-lockup", ("watchdog_timer_fn",)),
    ("rcu-stall", ("check_cpu_stall", "print_cpu_stall", "print_other_cpu_stall")),
    ("out-of-memory", ("out_of_memory", "check_panic_on_oom")),
    ("warning", ("__warn", "warn_slowpath_fmt", "warn_slowpath_null", "check_panic_on_warn")),
    ("double-fault", ("exc_double_fault", "do_double_fault", "doublefault_shim", "doublefault_fn")),
    ("general-protection", ("exc_general_protection", "do_general_protection")),
    ("divide-error", ("exc_divide_error", "do_divide_error")),
    ("bug", ("exc_invalid_op", "do_invalid_op", "handle_invalid_op")),
    ("machine-check", ("mce_panic", "do_machine_check")),
    ("page-fault", ("page_fault_oops", "no_context", "exc_page_fault", "do_page_fault")),
    ("panic", ("panic", "vpanic")),
)


def of_kernel(kernel: Linux, *, panics_only: bool = False) -> Signature | None:
    """The signature of a kernel's last fault; None if it has none.

    With ``panics_only`` an exception or a lockup that no panic followed is none: the kernel may
    have gone on.

    The log says what happened, memory says where. Without usable frames the functions are those in
    the log; without a log the kind is that of the handlers on the stack.
    """
    fault = fault_of(kernel)
    if fault is None:
        return _without_log(kernel)
    if panics_only and not fault.panicked:
        return None
    frames: Sequence[Frame] = ()
    with isolated("no signature from the stack", kernel.warn, AbsentError):
        frames = _frames(kernel, _task(kernel, fault))
    by_stack = of_frames(fault.kind, fault.text, frames)
    by_log = fault.signature()
    is_usable = by_stack.functions and not by_stack.guess
    found = by_log if by_log.functions and not is_usable else by_stack
    return found._replace(message=by_log.message)


def fault_of(kernel: Linux) -> Fault | None:
    """What the kernel's log says; None if it says nothing, or if there is no log."""
    # A ring may be full of line feeds.
    lines: deque[str] = deque(maxlen=MAX_LOG_LINES)
    with isolated("no signature from the log", kernel.warn, AbsentError):
        for record in printk.lines(kernel):
            lines.extend(record.text.split("\n"))
    return log_text.linux_fault(lines)


def of_frames(kind: str, text: str | None, frames: Iterable[Frame]) -> Signature:
    """The signature with the functions of a backtrace."""
    contexts = _contexts(frames)
    exact = [[function for function, guess in context if not guess] for context in contexts]
    every = [[function for function, _ in context] for context in contexts]
    used = relevant(kind, every)
    guess = relevant(kind, exact) != used
    return log_text.signature(kind, text, every, "stack", guess=guess and bool(used))


def _contexts(frames: Iterable[Frame]) -> list[list[tuple[Function, bool]]]:
    """The kernel's functions between interrupts; whether each is a guess."""
    contexts: list[list[tuple[Function, bool]]] = [[]]
    for frame in frames:
        if frame.user:
            break
        if frame.interrupted and contexts[-1]:
            contexts.append([])
        if frame.symbol is not None:
            contexts[-1].append((Function(frame.symbol, frame.module), frame.guess))
        if len(contexts) > DEPTH:
            break
    return contexts


def _task(kernel: Linux, fault: Fault) -> Task | None:
    """The task whose stack has the fault."""
    if fault.pid is not None:
        return next((task for task in kernel.tasks() if task.pid == fault.pid), None)
    if fault.cpu is not None and fault.cpu in kernel.active:
        return kernel.active[fault.cpu]
    return panic.task(kernel)


def _frames(kernel: Linux, task: Task | None) -> Sequence[Frame]:
    return () if task is None else kernel.backtrace(task).frames


def _without_log(kernel: Linux) -> Signature | None:
    """By the stack of the task that panicked, if one did."""
    with isolated("no signature", kernel.warn, AbsentError):
        frames = _frames(kernel, panic.task(kernel))
        symbols = {frame.symbol for frame in frames}
        for kind, functions in _KINDS:
            if symbols.intersection(functions):
                kernel.warn("the kind of the fault is that of the functions on the stack")
                return of_frames(kind, None, frames)
    return None
