"""Stacks in the text of a log: what show_trace() of Linux and show_stack() of Xen print."""

import re
from collections.abc import Sequence

from .._typing import NamedTuple
from ..limits import MAX_LOG_FUNCTIONS, MAX_LOG_LINE, MAX_LOG_STACK_LINES
from . import functions, messages
from .normal_form import Function, name

_SYMBOL = r"[A-Za-z_$][\w.$]*"
_MODULE = r"(?: \[([\w-]+)[^\]]*\])?"
#: "[<addr>] ? name+0x1/0x2 [module build-id] file.c:12", and "<addr> name" of 2.6.
_FRAME = (
    rf"(?:\[?<[0-9a-f]+>\]?\s+)?(\? |= )?({_SYMBOL})\+0x[0-9a-f]+/0x[0-9a-f]+{_MODULE}"
    r"(?: \S+:\d+)?(?: \(\w+\))?\s*"
)
#: What else is on a line of a stack.
_MARKS = r"</?[A-Z#]+>|<<?EOE>>?|={4,}|-{4,}"
_RIP = (
    r"\b(?:[RE]IP: [0-9a-f]{4}:(?:\[<\w+>\]\s+\[<\w+>\]\s*)?|EIP: |EIP is at |IP: \[<\w+>\] )"
    rf"({_SYMBOL})(?:\+0x[0-9a-f]+/0x[0-9a-f]+{_MODULE}| \(\S+\.[chS]:\d+)"
)
#: The pc is outside all functions, or in user mode: there is no function to name.
_RIP_UNKNOWN = r"\b[RE]IP: (?:[0-9a-f]{4}:)?(?:\[<\w+>\]\s+)?(?:\[?<?0?x?[0-9a-f]+>?\]?)\s*$"
_TRACE = r"Call [Tt]race:"
#: What other programs put before the kernel's text, in any order: a quotation, "<4>",
#: "kern  :alert : " (dmesg -x), a date and "host kernel: " (syslog, journalctl), times and tasks in
#: brackets.
_PREFIX = (
    r"(?:\s*(?:>|\|)\s?"
    r"|\s*<\d>"
    r"|[a-z]{2,10}\d? *:[a-z]{2,10} *: ?"
    r"|\s*\[[\s\d]+\.\d+\]\s?"
    r"|\s*\[\s*[TC]\d+\]\s?"
    r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\]\s?"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d,.:+Z-]{0,20}\s"
    r"|[^<\[(]{0,40}?\d\d:\d\d[^<\[(]{0,60}?\bkernel(?:\[\d+\])?: ?"
    r"|[\w.-]{1,64} kernel(?:\[\d+\])?: ?"
    r"){0,8}\s*"
)
_XEN_PREFIX = r"(?:>\s?)*\s*(?:\(XEN\)\s?)?(?:\[[^\]<]*\]\s?)?"
_XEN_FRAME = (
    r"\[<[0-9a-f]+>\]\s+(?:([RSF])\s+)?(\S*?[A-Za-z_]\w*(?:\.\w+)*)\+\w+(?:/\w+)?(?: \((\w+)\))?"
)
_XEN_RELEASE = r"----\[ Xen-.*\bdebug=n\b"


class LogStack(NamedTuple):
    """The functions of a fault in a log, by context, the innermost first."""

    contexts: list[list[Function]]


def content(line: str) -> str:
    """A line without the prefixes of consoles and of syslog."""
    line = line[:MAX_LOG_LINE]
    found = re.match(_PREFIX, line)
    return line[found.end() :] if found is not None else line


def xen_content(line: str) -> str:
    """A line of Xen's console without its prefixes."""
    line = line[:MAX_LOG_LINE]
    found = re.match(_XEN_PREFIX, line)
    return line[found.end() :] if found is not None else line


def linux(lines: Sequence[str], begin: int) -> LogStack:
    """The stack of the fault that is announced at the line ``begin``; lines without prefixes."""
    reader = _Reader()
    for line in lines[begin : begin + MAX_LOG_STACK_LINES]:
        if not reader.take(line):
            break
    return LogStack(reader.contexts())


class _Reader:
    """Collects the functions, line by line."""

    def __init__(self) -> None:
        self._first: Function | None = None
        self._contexts: list[list[Function]] = [[]]
        self._count = 0
        self._started = False

    def take(self, line: str) -> bool:
        """Whether more of the stack may follow."""
        text = line.strip()
        if self._count and re.search(messages.END_OF_STACK, text):
            return False
        if re.search(_TRACE, text):
            if self._count:
                return False  # the next stack
            self._started = True
            text = text[text.index(":") + 1 :].strip()
        if self._count and messages.of(text) is not None:
            return False  # the next fault
        if self._registers(text):
            return True
        if re.search(messages.CONTEXT_ENDS, text):
            self._boundary()
        self._functions(text)
        return self._count < MAX_LOG_FUNCTIONS

    def _registers(self, text: str) -> bool:
        """Whether a line has the pc, which is the innermost function or begins a context."""
        found = re.search(_RIP, text)
        if found is None:
            if re.search(_RIP_UNKNOWN, text):
                if self._count:
                    self._boundary()
                return True
            return False
        function = Function(found[1], found[2])
        if self._count:
            self._boundary()
            self._add(function)
        elif self._first is None:
            self._first = function
        return True

    def _functions(self, text: str) -> None:
        rest, found = 0, []
        plain = re.sub(_MARKS, " ", text).strip()
        for match in re.finditer(_FRAME, plain):
            if plain[rest : match.start()].strip():
                return  # a line that mentions a function
            rest = match.end()
            if match[1] is None:
                found.append(Function(match[2], match[3]))
            else:
                self._count += 1
        if plain[rest:].strip():
            return
        for function in found:
            self._add(function)

    def _add(self, function: Function) -> None:
        self._contexts[-1].append(function)
        self._count += 1

    def _boundary(self) -> None:
        if self._contexts[-1]:
            self._contexts.append([])

    def contexts(self) -> list[list[Function]]:
        """The contexts; the pc of the fault is the first function."""
        if self._first is None:
            return self._contexts
        return [
            [self._first, *_behind_reaction(self._contexts[0], self._first)],
            *self._contexts[1:],
        ]


def _behind_reaction(context: list[Function], first: Function) -> list[Function]:
    """The callers of the function that faulted: 2.6 lists the kernel's reaction before them."""
    names = [name(function.name) for function in context]
    start = 1 + max((i for i, one in enumerate(names) if functions.is_reaction(one)), default=-1)
    if start:
        while start < len(names) and functions.is_entry(names[start]):
            start += 1
        if start < len(names) and context[start].name == first.name:
            start += 1
    return context[start:]


def xen(lines: Sequence[str], begin: int, end: int) -> LogStack:
    """The stack below "Xen call trace:" between two lines; lines without prefixes.

    Functions that Xen found by a scan of its stack (S) are left out, except where an older release
    build does not say how it found them: then only the first is certain.
    """
    is_release = any(re.search(_XEN_RELEASE, line) for line in lines[max(0, begin - 80) : end])
    found: list[Function] = []
    has_marks = False
    for line in lines[begin + 1 : min(end, begin + 1 + MAX_LOG_STACK_LINES)]:
        match = re.search(_XEN_FRAME, line)
        if match is None:
            if line.strip():
                break
            continue
        has_marks = has_marks or match[1] is not None
        if match[1] == "S" or match[3] == "LR":
            continue
        found.append(Function(match[2]))
        if len(found) == MAX_LOG_FUNCTIONS:
            break
    if is_release and not has_marks:
        found = found[:1]
    return LogStack([found])
