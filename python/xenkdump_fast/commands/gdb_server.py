"""``gdb-server``: serves a domain to gdb."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

from .. import parsing
from .._typing import TYPE_CHECKING, NamedTuple
from ..output import writer
from ..regular_files import open_regular
from ..session import Domain
from .contract import UsageError

if TYPE_CHECKING:
    from ..bridges.gdb.session import Session
    from ..bridges.gdb.threads import Thread


class Options(NamedTuple):
    """The threads, and how gdb connects."""

    #: Every task is a thread.
    tasks: bool = False
    #: A port of the loopback interface; None for stdin and stdout.
    port: int | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``gdb-server``."""
    add_tasks(parser)
    parser.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help="listen on this port of 127.0.0.1, for one gdb after another; 0: any free one, which "
        "is printed. Without it, stdin and stdout are a pipe to gdb",
    )


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Adds the option ``--tasks``."""
    parser.add_argument(
        "--tasks", action="store_true", help="threads are all tasks, not only those on the vCPUs"
    )


def _port(text: str) -> int:
    port = parsing.number(text)
    if port is None or not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError(f"not a port: {text!r}")
    return port


def run(target: Domain, options: Options = Options()) -> "Server":
    """Reads the threads. UsageError if there is no pipe, AbsentError without threads."""
    if options.port is None and sys.stdin.isatty():
        raise UsageError(
            "stdin is no pipe. In gdb: target remote | xkdump gdb-server VMLINUX VMCORE; or use "
            "--port"
        )
    from ..bridges.gdb.memory import Memory
    from ..bridges.gdb.monitor import Command, Monitor
    from ..bridges.gdb.session import Session
    from ..bridges.gdb.threads import Threads

    threads = Threads(target.kernel, all_tasks=options.tasks)
    memory = Memory(target)
    commands = {
        name: Command(text, function(target)) for name, (text, function) in _MONITOR.items()
    }
    return Server(
        target,
        options.port,
        lambda: Session(target, threads, memory, Monitor(target, threads, commands)),
    )


def symbol_files(domain: Domain) -> list[str]:
    """The vmlinux, if gdb can read it: an ELF file, not a vmlinuz, a map or the kernel's memory."""
    image = domain.kernel.image
    if image.is_memory:
        return []
    with open_regular(image.path) as file:
        return [image.path] if file.read(4) == b"\x7fELF" else []


class Server:
    """A server that is ready."""

    def __init__(self, domain: Domain, port: int | None, session: "Callable[[], Session]") -> None:
        self._domain = domain
        self._port = port
        #: A session for one client.
        self.session = session

    def serve(self) -> None:
        """Serves gdb until it ends the session; with a port, until it kills the target."""
        from ..bridges.gdb import server

        if self._port is None:
            server.serve_pipe(self.session(), sys.stdin.fileno(), sys.stdout.fileno())
            return
        with server.listen(self._port) as listener:
            port = listener.getsockname()[1]
            lines = [f"listening on 127.0.0.1:{port}"]
            lines += [f"In gdb: file {path}" for path in symbol_files(self._domain)]
            lines.append(f"In gdb: target remote 127.0.0.1:{port}")
            writer.Writer().text(lines, tuple)
            server.serve_port(listener, self.session)


_Lines = Callable[[Sequence[str], "Thread"], Iterable[str]]


def _bt(domain: Domain) -> _Lines:
    from . import bt

    def run(words: Sequence[str], thread: "Thread") -> Iterable[str]:
        words = words or [f"{thread.task.address:x}"]
        return bt.run(domain, bt.Options(operands=words)).text()

    return run


def _without_options(name: str) -> Callable[[Domain], _Lines]:
    def bound(domain: Domain) -> _Lines:
        def run(words: Sequence[str], thread: "Thread") -> Iterable[str]:
            from importlib import import_module

            module: ModuleType = import_module(f".{name}", __package__)
            options = module.Options()
            if words and hasattr(options, "operands"):
                options = options._replace(operands=words)
            lines: Iterable[str] = module.run(domain, options).text()
            return lines

        return run

    return bound


#: Commands of ``monitor``: what each shows, and what gives its function for a domain.
_MONITOR: dict[str, tuple[str, Callable[[Domain], _Lines]]] = {
    "bt": ("the backtrace of the selected thread, or of PID, TASK or COMM", _bt),
    "ps": ("the tasks", _without_options("ps")),
    "log": ("the kernel's log", _without_options("log")),
    "sys": ("the session header", _without_options("sys")),
    "mod": ("the loaded modules", _without_options("mod")),
}
