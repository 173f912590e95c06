"""``gdb``: gdb on a domain, with ``gdb-server`` behind a pipe."""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Sequence

from .._typing import NamedTuple
from ..bridges.gdb.monitor import UNWINDER, quoted, symbol_file
from ..session import Domain
from . import gdb_server
from .contract import Operands, UsageError

OPERANDS = Operands("-- ARG", "arguments of gdb, after --")
#: Seconds that gdb waits for an answer: the server opens the dump first.
_TIMEOUT = 600


class Options(NamedTuple):
    """The threads, and gdb's arguments."""

    #: Every task is a thread.
    tasks: bool = False
    #: Arguments of gdb.
    operands: Sequence[str] = ()
    #: What was given after ``--``.
    literal: Sequence[str] = ()
    #: The arguments of this command, for ``gdb-server``.
    argv: Sequence[str] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``gdb``."""
    gdb_server.add_tasks(parser)


def run(target: Domain, options: Options = Options()) -> "Debugger":
    """The command that starts gdb. UsageError if gdb is not installed."""
    if list(options.operands) != list(options.literal):
        raise UsageError("arguments of gdb follow --")
    gdb = shutil.which("gdb")
    if gdb is None:
        raise UsageError("gdb is not installed")
    server = [sys.executable, "-m", "xenkdump_fast", "gdb-server", *options.argv]
    commands = [
        f"set remotetimeout {_TIMEOUT}",
        # gdb keeps what it read of stacks when another thread, with other user memory, is selected.
        "set stack-cache off",
        # gdb ends backtraces at the function with the file's entry point, as if it started there.
        "set backtrace past-entry on",
        # It comes first, for the frame that is printed on connection.
        f"source {UNWINDER}",
        f"target remote | {shlex.join(server)}",
    ]
    files = gdb_server.symbol_files(target)
    slide = target.kernel.location.slide
    if slide:
        # gdb also moves a file by itself, unless it lacks program headers.
        for path in files:
            commands = [f"exec-file {quoted(path)}", symbol_file(path, slide), *commands]
        files = []
    arguments = [word for command in commands for word in ("-ex", command)]
    return Debugger([gdb, "-q", *files, *arguments, *options.operands])


class Debugger(NamedTuple):
    """gdb, ready to be started."""

    argv: list[str]

    def serve(self) -> None:
        """Replaces this process by gdb."""
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(self.argv[0], self.argv)
