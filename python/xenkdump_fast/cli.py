"""``xkdump``: argument parsing, dispatch and exit status."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from . import isolation
from ._native import AbsentError, DumpError
from .commands import COMMANDS, Command
from .commands.contract import Operands, Result, UsageError
from .output import progress_line, writer
from .output.escape import printable

if TYPE_CHECKING:
    from .session import Dump


class ExitStatus(IntEnum):
    """Exit statuses of ``xkdump``."""

    OK = 0
    #: The dump does not hold what was asked for.
    ABSENT = 1
    USAGE = 2
    #: The file is not a dump, or is damaged beyond use.
    BROKEN = 3
    #: A bug in xkdump (EX_SOFTWARE of sysexits.h).
    BUG = 70


_STATUSES = (
    "Exit status: 0 success, 1 the dump does not hold what was asked for, 2 wrong usage, 3 the "
    "file is not a dump or is damaged beyond use, 70 a bug in xkdump."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    # numpy's OpenBLAS, which is never used, allocates memory for each CPU when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not argv or argv[0] not in COMMANDS:
        _overview().parse_args(argv)
        return ExitStatus.USAGE
    command = COMMANDS[argv[0]]
    # Only the command's own module is loaded: every module and every parser costs milliseconds.
    module = import_module(f".commands.{command.name}", __package__)
    options = _parse(command, module, argv[1:])
    try:
        with progress_line.shown(command.name):
            failure = _run(command, module, options)
    except BrokenPipeError:
        # The reader of our output is gone: not an error, but nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UsageError as error:
        return _fail(error, ExitStatus.USAGE)
    except AbsentError as error:
        return _fail(error, ExitStatus.ABSENT)
    except DumpError as error:
        return _fail(error, ExitStatus.BROKEN)
    except MemoryError as error:
        if isolation.strict:  # a fault injected into a dump must not exhaust memory
            raise
        return _fail(f"out of memory: {error}".removesuffix(": "), ExitStatus.BROKEN)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{where}{error.strerror or error}", ExitStatus.BROKEN)
    except Exception:
        if isolation.strict:
            raise
        writer.bug()
        return ExitStatus.BUG
    else:
        if failure is not None:
            return _fail(failure, ExitStatus.ABSENT)
    return ExitStatus.OK


def _fail(error: object, status: ExitStatus) -> int:
    writer.error(error)
    return status


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, io.StringIO())
        # A name in a dump may have characters that the terminal's encoding lacks.
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


# Arguments


class Parser(argparse.ArgumentParser):
    """Escapes arguments in messages: they may be names of files."""

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        super().error(printable(message))


def _overview() -> argparse.ArgumentParser:
    """What ``xkdump --help`` shows; also rejects an unknown command."""
    parser = Parser(
        prog="xkdump",
        description="Reads Xen and Linux kernel crash dumps, and any domain in them.",
        epilog=_STATUSES,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        commands.add_parser(command.name, help=command.summary)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"xkdump {version('xenkdump_fast')}"
    except PackageNotFoundError:
        return "xkdump (not installed)"


def _parse(command: Command, module: ModuleType, argv: Sequence[str]) -> argparse.Namespace:
    operands: Operands | None = getattr(module, "OPERANDS", None)
    files = {"required": ["VMLINUX", "VMCORE"], "optional": ["[VMLINUX]", "VMCORE"]}.get(
        command.vmlinux, ["VMCORE"] if command.target == "dump" else []
    )
    more = [] if operands is None else [_metavar(operands)]
    usage = [f"xkdump {command.name} [OPTION ...] {' '.join([*files, *more])}"]
    if command.hypervisor:
        usage.append(f"xkdump {command.name} --hypervisor [OPTION ...] [XEN-SYMS] VMCORE")
    parser = Parser(
        prog=f"xkdump {command.name}",
        usage="\n       ".join(usage),
        description=command.summary,
        epilog=_STATUSES,
    )
    named = " ".join([*files, *more])
    what = "the dump" if files else ""
    if command.vmlinux != "no":
        what = "the kernel's ELF file and the dump"
    if operands is not None:
        what = f"{what}, then {operands.help}" if what else operands.help
    parser.add_argument("words", nargs="*", metavar=named, help=what)
    _add_common_options(parser, command)
    if hasattr(module, "add_options"):
        module.add_options(parser)
    options = parser.parse_intermixed_args(argv)
    words = _take_files(parser, command, options)
    options.operands = words
    taken = 0 if operands is None else 1 if operands.arity == "1" else len(words)
    if words[taken:]:
        parser.error(f"unrecognized arguments: {' '.join(words[taken:])}")
    if operands is not None and operands.arity != "*" and not words and not options.hypervisor:
        parser.error(f"the following arguments are required: {operands.metavar}")
    _check_values(parser, options)
    return options


def _metavar(operands: Operands) -> str:
    name = operands.metavar
    return {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "1": name}[operands.arity]


def _add_common_options(parser: argparse.ArgumentParser, command: Command) -> None:
    add = parser.add_argument
    if command.hypervisor:
        add(
            "--hypervisor",
            action="store_true",
            help=f"{command.hypervisor}; the files are then [XEN-SYMS] VMCORE",
        )
    if command.vmlinux != "no":
        add("--domain", type=int, default=0, metavar="ID", help="default: 0, dom0")
    if command.target == "domain":
        add("--p2m-source", metavar="SOURCE", help="force one: list, linear or cr3")
        add("--force", action="store_true", help="accept a vmlinux of another build")
    add("--json", action="store_true", help="one JSON object instead of text")


def _take_files(
    parser: argparse.ArgumentParser, command: Command, options: argparse.Namespace
) -> list[str]:
    """Moves the files from ``options.words`` to members of their own; returns the other words."""
    words: list[str] = options.words
    options.hypervisor = getattr(options, "hypervisor", False)
    options.xen_syms = getattr(options, "xen_syms", None)
    options.vmlinux = options.vmcore = None
    if command.target == "none":
        return words
    if options.hypervisor:
        symbols, names, count = "xen_syms", "VMCORE", min(len(words), 2)
    elif command.vmlinux == "required":
        symbols, names, count = "vmlinux", "VMLINUX, VMCORE", 2
    else:
        symbols, names = "vmlinux", "VMCORE"
        count = 1 if command.vmlinux == "no" else min(len(words), 2)
    if len(words) < max(count, 1):
        parser.error(f"the following arguments are required: {names}")
    if count == 2:
        setattr(options, symbols, words[0])
    options.vmcore = words[count - 1]
    if options.hypervisor and words[count:]:
        parser.error(f"unrecognized arguments: {' '.join(words[count:])}")
    return words[count:]


def _check_values(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    try:
        if getattr(options, "unwind", None) is not None:
            from .commands import unwinding

            unwinding.check(options.unwind, hypervisor=options.hypervisor)
        if getattr(options, "p2m_source", None) is not None:
            from .xen.p2m_sources import check_name

            check_name(options.p2m_source)
    except ValueError as error:
        parser.error(str(error))


# Targets


def _run(command: Command, module: ModuleType, options: argparse.Namespace) -> str | None:
    """Opens the target, runs the command on it, writes the result; returns why it failed, if so."""
    asked = module.Options(**{name: getattr(options, name) for name in module.Options._fields})
    if command.target == "none":
        return _write(command.name, options, module.run(None, asked), tuple)
    from . import session

    dump = session.open(options.vmcore)
    with writer.warnings_on_error(lambda: dump.warnings):
        target, name, warnings = _open_target(command, dump, options)
    with writer.warnings_on_error(warnings):
        result = module.run(target, asked)
    return _write(name, options, result, warnings)


def _open_target(
    command: Command, dump: "Dump", options: argparse.Namespace
) -> tuple[Any, str, Callable[[], Iterable[str]]]:
    """What the command is run on, the command's name in JSON, and the target's warnings."""
    if options.hypervisor:
        xen = dump.xen(options.xen_syms, force=options.force)
        if xen.symbols is None:
            xen.warnings.append(
                "without xen-syms there are no names of Xen's functions and variables: its "
                "stacks, clock rate and memory size are incomplete"
            )
        return xen, f"{command.name} --hypervisor", lambda: [*dump.warnings, *xen.warnings]
    if command.target == "dump":
        return dump, command.name, lambda: dump.warnings
    domain = dump.domain(
        options.domain,
        options.vmlinux,
        p2m_source=options.p2m_source,
        force=options.force,
        unwind=getattr(options, "unwind", None),
    )
    return domain, command.name, lambda: domain.warnings


def _write(
    name: str,
    options: argparse.Namespace,
    result: Result,
    target_warnings: Callable[[], Iterable[str]],
) -> str | None:
    def warnings() -> list[str]:
        return [*target_warnings(), *getattr(result, "warnings", ())]

    if options.json:
        writer.write_json(name, options.vmcore, result.json(), warnings)
    else:
        writer.write_text(result.text(), warnings)
    failure: str | None = getattr(result, "failure", None)
    return failure
