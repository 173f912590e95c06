"""Completes the last word of a line: commands, options, domains, tasks, symbols and structs.

What an operand or the value of an option may be is in its ``metavar`` and its ``choices``; so a new
command is completed without a change here.
"""

import argparse
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from glob import glob
from typing import NamedTuple

from .. import arguments
from .._native import AbsentError, DumpError
from ..commands.contract import Operands
from ..limits import MAX_COMPLETIONS
from ..linux import modules, task_table
from ..linux.kernel import Kernel
from . import builtins, filters, parser
from .line import Token, tokens
from .output import PAGERS
from .session import ALL, HYPERVISOR
from .state import State, available

#: Names that need no quotes.
_PLAIN = re.compile(r"[\w@%+=:,./\[\]-]+", re.ASCII)


class Completion(NamedTuple):
    """What the end of a line from ``start`` may become."""

    start: int
    texts: Sequence[str] = ()


class Completer:
    """Completes the lines of a shell."""

    def __init__(self, state: State) -> None:
        self._state = state
        #: Names by what they are of, in order; of the kernel that they were read from.
        self._names: dict[str, tuple[Kernel, list[str]]] = {}
        self._kinds: dict[str, Callable[[str], Iterable[str]]] = {
            "PID": self._pids,
            "COMM": self._comms,
            "SYMBOL": self._symbols,
            "VARIABLE": self._symbols,
            "EXPRESSION": self._symbols,
            "MODULE": self._modules,
            "STRUCT": self._structs,
            "TYPE": self._structs,
            "DOMAIN": self._domains,
            "FILE": _files,
        }

    def complete(self, text: str) -> Completion:
        """The candidates for the last word of ``text``."""
        found = list(tokens(text))
        last = found[-1] if found else None
        is_new = last is None or last.is_operator or text[-1:].isspace()
        before = found if is_new else found[:-1]
        start = len(text) if is_new or last is None else last.start
        word = text[start:]
        if re.search(r"[\"'\\]", word):
            return Completion(start)
        try:
            texts = dict.fromkeys(
                name for name in self._candidates(before, word) if name.startswith(word)
            )
        except (DumpError, OSError, MemoryError):
            # Damage is reported by commands.
            return Completion(start)
        return Completion(start, [*texts][:MAX_COMPLETIONS])

    def _candidates(self, before: Sequence[Token], word: str) -> Iterable[str]:
        if before and before[-1].is_operator and before[-1].text.startswith(">"):
            return _files(word)
        words: list[str] = []
        is_filter = False
        for token in before:
            if token.is_operator:
                words, is_filter = [], token.text == "|"
            else:
                words.append(token.text)
        if is_filter:
            if not words:
                return sorted([*filters.NAMES, *PAGERS])
            return self._arguments(_parser_of_filter(words[0]), None, words[1:], word)
        if not words:
            return sorted({*available(), *builtins.TABLE, *self._state.aliases})
        words = [*self._state.expanded(words)]
        if words[0] in builtins.TABLE:
            return self._of_builtin(words[0], words[1:], word)
        command = available().get(words[0])
        if command is None:
            return ()
        module = arguments.command_module(command)
        operands: Operands | None = getattr(module, "OPERANDS", None)
        return self._arguments(parser.parser_of(command, module), operands, words[1:], word)

    def _of_builtin(self, name: str, words: Sequence[str], word: str) -> Iterable[str]:
        if name == "help":
            return sorted({*available(), *builtins.TABLE, *filters.NAMES})
        if name == "domain" and not words:
            return self._domains(word)
        if name == "set" and words == ["scroll"]:
            return ["on", "off"]
        if name == "set" and not words:
            return ["scroll", "-c", "-p", *self._pids(word), *self._comms(word)]
        if name in ("alias", "unalias"):
            return self._state.aliases if not words else available()
        return ()

    def _arguments(
        self,
        of: argparse.ArgumentParser | None,
        operands: Operands | None,
        words: Sequence[str],
        word: str,
    ) -> Iterable[str]:
        if of is None:
            return ()
        options = {name: action for action in of._actions for name in action.option_strings}
        previous = options.get(words[-1]) if words else None
        if previous is not None and previous.nargs != 0:
            return self._values(previous.metavar or "", previous.choices, word)
        if word.startswith("-"):
            return sorted(options, key=lambda name: name.lstrip("-"))
        if operands is None:
            return ()
        return self._values(operands.metavar, operands.choices, word)

    def _values(
        self, metavar: object, choices: Iterable[object] | None, word: str
    ) -> Iterable[str]:
        if choices is not None:
            return map(str, choices)
        kinds = re.findall("[A-Z]+", metavar) if isinstance(metavar, str) else []
        return (name for kind in kinds if kind in self._kinds for name in self._kinds[kind](word))

    def _kernel(self) -> Kernel | None:
        domain = self._state.session.current
        return None if domain is None else domain.kernel

    def _of_kernel(
        self, what: str, word: str, read: Callable[[Kernel], Iterable[str]]
    ) -> Iterator[str]:
        """Names that start with ``word``, of the current kernel."""
        kernel = self._kernel()
        if kernel is None:
            return
        known = self._names.get(what)
        if known is None or known[0] is not kernel:
            known = self._names[what] = kernel, _plain(read(kernel))
        names = known[1]
        for name in names[bisect_left(names, word) :]:
            if not name.startswith(word):
                break
            yield name

    def _pids(self, word: str) -> Iterable[str]:
        return self._of_kernel("PID", word, lambda kernel: self._of_tasks(kernel)[0])

    def _comms(self, word: str) -> Iterable[str]:
        return self._of_kernel("COMM", word, lambda kernel: self._of_tasks(kernel)[1])

    def _of_tasks(self, kernel: Kernel) -> tuple[set[str], set[str]]:
        """The pids and the names of all tasks, which are read once for both: they may be many."""
        pids: set[str] = set()
        comms: set[str] = set()
        for task in task_table.read(kernel):
            pids.add(str(task.pid))
            comms.add(task.comm)
        self._names["PID"] = kernel, _plain(pids)
        self._names["COMM"] = kernel, _plain(comms)
        return pids, comms

    def _modules(self, word: str) -> Iterable[str]:
        return self._of_kernel(
            "MODULE", word, lambda kernel: (module.name for module in modules.modules(kernel))
        )

    def _symbols(self, word: str) -> Iterable[str]:
        return self._of_kernel("SYMBOL", word, lambda kernel: (s.name for s in kernel.symbols))

    def _structs(self, word: str) -> Iterable[str]:
        return self._of_kernel("STRUCT", word, _struct_names)

    def _domains(self, word: str) -> Iterable[str]:
        session = self._state.session
        if session.has_domains:
            yield from (HYPERVISOR, ALL)
        yield from map(str, session.dump.domain_ids)


def _plain(names: Iterable[str]) -> list[str]:
    """The names that need no quotes, each once, in order."""
    return sorted({name for name in names if _PLAIN.fullmatch(name)})


def _struct_names(kernel: Kernel) -> Iterable[str]:
    """The names of structs and unions; none without type information."""
    try:
        graph = kernel.types.graph
    except AbsentError:
        return ()
    return (kind.name for kind in graph if kind.name and kind.kind in ("struct", "union"))


def _files(word: str) -> Iterable[str]:
    escaped = re.sub(r"([*?\[])", r"[\1]", word)
    return sorted(glob(f"{escaped}*"))


def _parser_of_filter(name: str) -> argparse.ArgumentParser | None:
    return filters.parser_of(name) if name in filters.NAMES else None
