"""``xkdump shell``: lines from a terminal, from arguments, from a file or from stdin."""

import argparse
import sys
from collections.abc import Iterable

from ..commands.contract import UsageError
from ..job import ExitStatus, Targets, explain
from ..output import writer
from .builtins import LeaveError
from .repl import Shell
from .session import Session


def start(targets: Targets, options: argparse.Namespace) -> int:
    """Runs a shell; returns its exit status.

    At a terminal that is 0; of a script it is the highest status of its commands. Raises what
    opening the dump does, and the domain with a vmlinux that is given.
    """
    if options.lines and options.input is not None:
        raise UsageError("argument -i/--input: not allowed with argument -c")
    session = Session(targets, options)
    writer.Writer().warn(session.unreported(options.notes, session.context.where))
    is_script = bool(options.lines) or options.input is not None or not sys.stdin.isatty()
    is_script = is_script or not sys.stdout.isatty()
    shell = Shell(session, escapes=options.shell_escapes, scroll=not is_script)
    if options.vmlinux is not None:
        _ = session.current  # a vmlinux of another build is an error now
    if not is_script:
        return _interact(shell, keep=options.history)
    if options.lines:
        return _run(shell, options.lines)
    if options.input is not None:
        with open(options.input, encoding="utf-8", errors="surrogateescape") as stream:
            return _run(shell, stream)
    return _run(shell, sys.stdin)


def _run(shell: Shell, lines: Iterable[str]) -> int:
    """Runs all lines; returns the highest exit status."""
    status = 0
    try:
        for line in lines:
            status = max(status, shell.run(line.rstrip("\n")))
    except LeaveError:
        pass
    return status


def _interact(shell: Shell, *, keep: bool) -> int:
    from . import editor, history
    from .completer import Completer

    known = history.History(history.path() if keep else None)
    if known.problem is not None:
        writer.Writer().warn([known.problem])
    _greet(shell)
    ask = editor.reader(Completer(shell), known)
    while True:
        try:
            for line in ask(shell.prompt).split("\n"):  # several if they were pasted
                shell.run(line)
        except KeyboardInterrupt:
            # Of the line, or of the command. What it has printed so far may end within a line.
            print()
        except EOFError:
            print()
            return ExitStatus.OK
        except LeaveError:
            return ExitStatus.OK


def _greet(shell: Shell) -> None:
    """Prints the session header, as crash does."""
    try:
        shell.run("sys" if shell.session.current is not None else "sys --hypervisor")
    except KeyboardInterrupt:
        print()
    except Exception as error:
        writer.error(explain(error)[0])
    print()
    print("'help' lists the commands, 'domain' the domains.")
    print()
