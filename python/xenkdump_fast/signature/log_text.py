"""The signature of a fault from the text of a log: a kernel's, Xen's, or a console with both."""

import re
from collections.abc import Iterable, Sequence

from .._typing import NamedTuple
from ..limits import MAX_LOG_LINES
from . import log_stack, messages
from .messages import Message
from .normal_form import Function, Signature, panic_text, relevant

_BOOT = r"Linux version \d+\.\d+"
#: Lines in which the reason of Xen's panic follows its heading.
_REASON_LINES = 4
#: Lines before a panic of Xen in which the watchdog may have announced it.
_WATCHDOG_LINES = 400
_HUNG = r"^.{0,64}?INFO: task .{1,64}?:(\d+) "
_CPU = r"(?:CPU#?|cpu ?)(\d+)"
_STALLED = r"^\s*(?:rcu: )?\s*(\d+)-[.O?]"


class Fault(NamedTuple):
    """What a log says about the last fault."""

    kind: str
    #: The words of a panic, of an assertion or of a report.
    text: str | None
    contexts: Sequence[Sequence[Function]]
    #: The line that announces it, as printed.
    line: str
    #: The pid of the hung task, if another task panicked.
    pid: int | None = None
    #: The stuck CPU, if another one panicked.
    cpu: int | None = None
    #: Whether a panic followed, or was it: without one the kernel may have gone on.
    panicked: bool = True

    def signature(self) -> Signature:
        """The signature, with the functions from the log."""
        found = signature(self.kind, self.text, self.contexts, "log")
        return found._replace(message=self.line or None)


def signature(
    kind: str,
    text: str | None,
    contexts: Sequence[Sequence[Function]],
    source: str,
    *,
    guess: bool = False,
) -> Signature:
    """The signature of a fault with these functions on its stack."""
    found = relevant(kind, contexts)
    if found and found[0].name == "sysrq_handle_crash":
        # Before 5.0 (8341f2f222d7) it dereferenced NULL.
        kind, text = "sysrq", None
    names = tuple(function.name for function in found)
    module = found[0].module if found else None
    return Signature(kind, text, names, module, source if names else "none", guess and bool(names))


class _Event(NamedTuple):
    line: int
    message: Message


def fault(text: str) -> Fault | None:
    """The last fault in a log; None if there is none.

    A panic of Xen ends everything else. In a log of several boots the last with a fault counts.
    """
    lines = text.rsplit("\n", MAX_LOG_LINES)[-MAX_LOG_LINES:]
    return xen_fault(lines) or linux_fault(lines)


def linux_fault(lines: Iterable[str]) -> Fault | None:
    """The last fault of a kernel."""
    plain = [log_stack.content(line) for line in lines]
    starts = [0, *(i for i, line in enumerate(plain) if re.search(_BOOT, line)), len(plain)]
    for begin, end in zip(reversed(starts[:-1]), reversed(starts[1:]), strict=True):
        found = _in_boot(plain[begin:end])
        if found is not None:
            return found
    return None


def _in_boot(lines: Sequence[str]) -> Fault | None:
    found = ((i, messages.of(line)) for i, line in enumerate(lines))
    events = [_Event(i, message) for i, message in found if message is not None]
    panics = [event for event in events if event.message.cause == "panic"]
    if panics:
        return _of_panic(lines, events, panics[0])
    faults = [event for event in events if event.message.cause == "fault"]
    if faults:
        return _of_event(lines, _first_of(lines, faults, faults[-1]), None)
    stuck = ("hard-lockup", "soft-lockup", "rcu-stall", "hung-task")
    for kind in stuck:
        for event in events:
            if event.message.kind == kind:
                return _of_event(lines, event, None)
    return None


def _of_panic(lines: Sequence[str], events: Sequence[_Event], panic: _Event) -> Fault:
    found = re.search(messages.PANIC, lines[panic.line])
    text = found[1] if found is not None else ""
    before = [event for event in events if event.line < panic.line]
    kind, words = "panic", panic_text(text)
    for pattern, of, kinds in messages.PANICS:
        if not re.search(pattern, text):
            continue
        cause = _cause(lines, before, of, kinds)
        if cause is not None:
            return _of_event(lines, cause, panic)
        kind = of
        break
    stack = log_stack.linux(lines, panic.line)
    return Fault(
        kind, words if kind == "panic" else None, stack.contexts, lines[panic.line].strip()
    )


def _cause(lines: Sequence[str], before: Sequence[_Event], kind: str, kinds: str) -> _Event | None:
    """The event that a panic refers to."""
    if kinds == "*":
        faults = [event for event in before if event.message.cause == "fault"]
        return _first_of(lines, faults, faults[-1]) if faults else None
    listed = kinds.split()
    found = [event for event in before if event.message.kind in listed]
    if not found:
        return None
    if kind == "hung-task":
        # The tasks are reported in the order of their list, and the panic follows the last.
        return found[0]
    return found[-1] if found[-1].message.cause == "symptom" else _first_of(lines, found, found[-1])


def _first_of(lines: Sequence[str], faults: Sequence[_Event], last: _Event) -> _Event:
    """The first of the lines that announce one exception, and of faults within its report.

    "kernel BUG at" is followed by "invalid opcode", "unable to handle" by "Oops". The report of an
    exception ends with "end trace"; another exception before that is a consequence.
    """
    first = last
    for event in reversed(faults):
        if event.line > first.line or event is last:
            continue
        if any("---[ end trace" in line for line in lines[event.line : first.line]):
            break
        first = event
    return first


def _of_event(lines: Sequence[str], event: _Event, panic: _Event | None) -> Fault:
    """The fault that an event announces, and that a panic may have followed."""
    kind, line = event.message.kind, lines[event.line]
    contexts = log_stack.linux(lines, event.line).contexts
    if kind == "oops":
        kind = "page-fault"
    if kind == "rcu-stall":
        contexts = _of_stall(lines, event.line) or contexts
    if panic is not None and not any(contexts):
        # Before 5.x __warn() panicked before it printed the registers.
        contexts = log_stack.linux(lines, panic.line).contexts
    text: str | None = None
    if kind in messages.REPORTS:
        report = re.search(messages.REPORT, line)
        text = report[1] if report is not None else None
    pid, cpu = _pid(kind, line), _cpu(kind, lines, event.line)
    return Fault(kind, text, contexts, line.strip(), pid, cpu, panic is not None)


def _of_stall(lines: Sequence[str], begin: int) -> list[list[Function]] | None:
    """The stack of the CPU that is stuck, which another CPU may have asked for by an NMI."""
    for i in range(begin, min(begin + 60, len(lines))):
        if re.search(r"NMI backtrace for cpu \d+$", lines[i].strip()):
            return log_stack.linux(lines, i).contexts
    return None


def _pid(kind: str, line: str) -> int | None:
    found = re.search(_HUNG, line) if kind == "hung-task" else None
    return int(found[1][:10]) if found is not None else None


def _cpu(kind: str, lines: Sequence[str], begin: int) -> int | None:
    if kind in ("soft-lockup", "hard-lockup"):
        found = re.search(_CPU, lines[begin])
        return int(found[1][:6]) if found is not None else None
    if kind == "rcu-stall":
        for line in lines[begin : begin + 4]:
            found = re.search(_STALLED, line)
            if found is not None:
                return int(found[1][:6])
    return None


def xen_fault(lines: Sequence[str]) -> Fault | None:
    """The last panic of Xen on its console; None if it has not panicked."""
    plain = [log_stack.xen_content(line) for line in lines]
    end = _last(plain, messages.XEN_PANIC)
    if end is None:
        for pattern in (messages.XEN_DOUBLE_FAULT, messages.XEN_BUG, messages.XEN_ASSERTION):
            end = _last(plain, pattern)
            if end is not None:
                break
    key = _last(plain, messages.XEN_CRASHDUMP_KEY)
    if key is not None and (end is None or end < key):
        return Fault("xen-crashdump-key", None, (), plain[key].strip())
    if end is None:
        return None
    reason = _reason(plain, end)
    kind, text = _xen_kind(plain, end, reason)
    begin = _last(plain[:end], messages.XEN_TRACE)
    if begin is not None:
        stack = log_stack.xen(plain, begin, end)
    else:
        following = next(
            (i for i in range(end, len(plain)) if re.search(messages.XEN_TRACE, plain[i])), None
        )
        stack = (
            log_stack.LogStack([[]])
            if following is None
            else log_stack.xen(plain, following, len(plain))
        )
    if kind == "xen-bug" and not any(stack.contexts):
        file = re.search(messages.XEN_BUG, reason)
        text = None if file is None else file[1].rpartition("/")[2]
    return Fault(kind, text, stack.contexts, reason)


def _last(lines: Sequence[str], pattern: str) -> int | None:
    return next((i for i in range(len(lines) - 1, -1, -1) if re.search(pattern, lines[i])), None)


def _reason(lines: Sequence[str], at: int) -> str:
    """What follows "Panic on CPU 0:", on the same line or on the next ones."""
    found = re.search(messages.XEN_PANIC, lines[at])
    if found is None:
        return lines[at].strip()
    if found[1]:
        return found[1].strip()
    words = (line.strip() for line in lines[at + 1 : at + 1 + _REASON_LINES])
    return " ".join(word for word in words if word and not word.startswith("****"))


def _xen_kind(lines: Sequence[str], at: int, reason: str) -> tuple[str, str | None]:
    trap = re.search(messages.XEN_TRAP, reason)
    if trap is not None:
        vector = int(trap[1][:6])
        if (
            vector == 2
            and _last(lines[max(0, at - _WATCHDOG_LINES) : at], messages.XEN_WATCHDOG) is not None
        ):
            return "xen-watchdog", None
        return f"xen-{messages.XEN_VECTORS.get(vector, f'trap-{vector}')}", None
    if re.search(messages.XEN_PAGE_FAULT, reason):
        return "xen-page-fault", None
    if re.search(messages.XEN_DOUBLE_FAULT, reason):
        return "xen-double-fault", None
    if re.search(messages.XEN_BUG, reason):
        return "xen-bug", None
    assertion = re.search(messages.XEN_ASSERTION, reason)
    if assertion is not None:
        return "xen-assertion", panic_text(assertion[1])
    if re.search(messages.XEN_MACHINE_CHECK, reason):
        return "xen-machine-check", None
    return "xen-panic", panic_text(reason)
