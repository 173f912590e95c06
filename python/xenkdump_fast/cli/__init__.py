"""``xkdump``: which command, and its exit status. One file a family of commands."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from .. import isolation
from .._native import AbsentError, DumpError
from ..render.escape import printable
from .output import fail, fail_by_bug
from .waiting import shown

#: Exit statuses; the last is EX_SOFTWARE of sysexits.h.
FINE, ABSENT, USAGE, BROKEN, BUG = 0, 1, 2, 3, 70

#: name -> the module of this package that has its arguments, and what the command gives. Only the
#: module of the command at hand is loaded: an argparse parser costs milliseconds.
COMMANDS = {
    "bt": ("bt", "backtraces of tasks, the panicking one's first of all"),
    "sys": ("kernel", "the session header: KERNEL to STATE"),
    "ps": ("kernel", "the tasks"),
    "log": ("kernel", "the kernel's log"),
    "mod": ("kernel", "the loaded modules"),
    "vtop": ("kernel", "walk the page tables"),
    "check": ("check", "compare all the sources of a P2M"),
    "notes": ("host", "every ELF note, decoded"),
    "domains": ("host", "every domain of a Xen host"),
    "vcpus": ("host", "every vCPU of every domain"),
    "sample": ("sample", "forge a small dump, to learn on and to test with"),
}
_STATUSES = (
    "Exit status: 0 fine, 1 the dump does not hold what was asked, 2 wrong usage, 3 the file is "
    "not a dump or is broken beyond use, 70 a bug in xkdump."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, io.StringIO())
        # A name in a dump may have letters that the terminal's encoding lacks.
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not argv or argv[0] not in COMMANDS:
        _overview().parse_args(argv)
        return USAGE
    name, rest = argv[0], argv[1:]
    module, what = COMMANDS[name]
    family = import_module(f".{module}", __package__)
    parser = Parser(prog=f"xkdump {name}", description=what, epilog=_STATUSES)
    parser.set_defaults(command=name)
    family.add_arguments(parser, name, rest)
    args = parser.parse_args(rest)
    try:
        with shown(name):
            family.run(args)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except AbsentError as error:
        return fail(error, ABSENT)
    except DumpError as error:
        return fail(error, BROKEN)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return fail(f"{where}{error.strerror or error}", BROKEN)
    except UsageError as error:
        return fail(error, USAGE)
    except Exception:
        if isolation.strict:
            raise
        return fail_by_bug(BUG)
    return FINE


def _overview() -> argparse.ArgumentParser:
    """What ``xkdump --help`` shows, and what a wrong command is told."""
    parser = Parser(
        prog="xkdump",
        description="Reads Xen and Linux kernel crash dumps, any domain of them.",
        epilog=_STATUSES,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (_, what) in COMMANDS.items():
        commands.add_parser(name, help=what)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"xkdump {version('xenkdump_fast')}"
    except PackageNotFoundError:
        return "xkdump of a tree that was not installed"


class UsageError(Exception):
    """The arguments ask for something that there is not."""


class Parser(argparse.ArgumentParser):
    """Quotes arguments, which may be names of files, in a way that no terminal obeys."""

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        super().error(printable(message))
