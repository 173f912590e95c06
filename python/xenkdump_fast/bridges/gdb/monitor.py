"""gdb's command ``monitor``: what gdb cannot find itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ... import parsing
from ..._native import AbsentError
from ...isolation import isolated
from ...output.escape import printable
from ...session import Domain
from .threads import Thread, Threads

#: A script for gdb.
UNWINDER = Path(__file__).with_name("unwinder.py")


class Command(NamedTuple):
    """A command: it gets its arguments and the selected thread, and returns lines."""

    help: str
    run: Callable[[Sequence[str], Thread], Iterable[str]]


class Monitor:
    """The commands, by name."""

    def __init__(self, domain: Domain, threads: Threads, commands: Mapping[str, Command]) -> None:
        self._domain = domain
        self._threads = threads
        self._commands = {
            "help": Command("these commands", lambda words, thread: self._help()),
            "kaslr": Command(
                "the KASLR offset, and gdb's command for a vmlinux that is loaded later",
                lambda words, thread: self._kaslr(),
            ),
            "unwinder": Command(
                "gdb's command with which backtraces go on where DWARF ends",
                lambda words, thread: [f"source {UNWINDER}"],
            ),
            "callers": Command(
                "what that command asks for: callers that gdb cannot find",
                lambda words, thread: self._callers(words),
            ),
            **commands,
        }
        #: Warnings that the user has seen.
        self._warned = set(domain.warnings)

    def run(self, line: str, thread: Thread) -> Iterator[str]:
        """The output of a command, then new warnings."""
        name, *words = line.split() or ["help"]
        command = self._commands.get(name)
        if command is None:
            yield f"no command {printable(name)}: monitor help lists them"
            return
        problems: list[str] = []
        with isolated(name, problems.append, AbsentError):
            yield from map(printable, command.run(words, thread))
        yield from map(printable, problems)
        for text in self._domain.warnings:
            if text not in self._warned:
                self._warned.add(text)
                yield f"warning: {printable(text)}"

    def _help(self) -> Iterator[str]:
        for name, command in self._commands.items():
            yield f"monitor {name}: {command.help}"

    def _callers(self, words: Sequence[str]) -> Iterator[str]:
        number = parsing.number(words[0]) if words else None
        thread = None if number is None else self._threads.get(number)
        if thread is None:
            yield "callers ID: gdb's id of a thread"
            return
        for caller in self._threads.callers(thread):
            values = (f"{name}={value:#x}" for name, value in caller.registers.items())
            place = f"{caller.pc:#x} {caller.sp:#x} {caller.order:#x}"
            yield " ".join((place, *values, *caller.same))

    def _kaslr(self) -> Iterator[str]:
        kernel = self._domain.kernel
        slide = kernel.location.slide
        yield f"KASLR offset: {slide:#x}"
        if slide and not kernel.image.is_memory:
            yield "gdb moves a vmlinux by it that was loaded before target remote. After it:"
            yield symbol_file(kernel.image.path, slide)


def symbol_file(path: str, slide: int) -> str:
    """gdb's command that loads a vmlinux at a KASLR offset."""
    return f"symbol-file -o {slide:#x} {quoted(path)}"


def quoted(path: str) -> str:
    """A path as an argument of gdb's commands."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
