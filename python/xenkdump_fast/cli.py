"""``xkdump``: argument parsing, dispatch and exit status."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from importlib import import_module
from itertools import takewhile
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from . import isolation, parsing, resource_limits
from ._native import AbsentError, DumpError
from .commands import COMMANDS, Command
from .commands.contract import Operands, Result, UsageError
from .output import progress_line, writer
from .output.escape import printable

if TYPE_CHECKING:
    from .session import Dump
    from .xen.host import XenHost


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
    #: The output cannot be written (EX_IOERR).
    OUTPUT = 74
    #: Ctrl-C: 128 and the number of SIGINT, as shells report it.
    INTERRUPTED = 130


#: Environment variables that name the files.
_VMLINUX, _VMCORE = "XKDUMP_VMLINUX", "XKDUMP_VMCORE"
_FILES = f"The environment variables {_VMLINUX} and {_VMCORE} name files that are not given."
_STATUSES = (
    "Exit status: 0 success, 1 the dump does not hold what was asked for, 2 wrong usage, 3 the "
    "file is not a dump or is damaged beyond use, 70 a bug in xkdump, 74 the output cannot be "
    "written, 130 interrupted."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    # numpy's OpenBLAS, which is never used, allocates memory for each CPU when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return _main(argv)
    except BrokenPipeError:
        # The reader of our output is gone: not an error, but nothing more can be written.
        _discard_output()
        return ExitStatus.OK
    except writer.WriteError as error:
        _discard_output()
        writer.error(error)
        return ExitStatus.OUTPUT
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED


def _main(argv: Sequence[str]) -> int:
    if argv and argv[0] == "help":
        argv = [*argv[1:2], "--help"]
    if not argv or argv[0] not in COMMANDS:
        _overview().parse_args(argv)
        return ExitStatus.USAGE
    command = COMMANDS[argv[0]]
    # Only the command's own module is loaded: every module and every parser costs milliseconds.
    module = import_module(f".commands.{command.name}", __package__)
    job = Job(command, module, _parse(command, module, argv[1:]))
    try:
        resource_limits.check()
        with progress_line.shown(command.name):
            failure = job.run()
    except UsageError as error:
        return job.fail(error, ExitStatus.USAGE)
    except AbsentError as error:
        return job.fail(error, ExitStatus.ABSENT)
    except DumpError as error:
        return job.fail(error, ExitStatus.BROKEN)
    except MemoryError as error:
        if isolation.strict:  # a fault injected into a dump must not exhaust memory
            raise
        return job.fail(f"out of memory: {error}".removesuffix(": "), ExitStatus.BROKEN)
    except (BrokenPipeError, writer.WriteError):
        raise
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return job.fail(f"{where}{error.strerror or error}", ExitStatus.BROKEN)
    except Exception as error:
        if isolation.strict:
            raise
        writer.bug()
        return job.fail(f"{type(error).__name__}: {error}", ExitStatus.BUG)
    if failure is not None:
        writer.error(failure)
        return ExitStatus.ABSENT
    return ExitStatus.OK


def _discard_output() -> None:
    """Lets the flush at the end of the process succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    parser.add_argument("-V", "--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        commands.add_parser(command.name, help=command.summary)
    commands.add_parser("help", help="the options of a command: xkdump help COMMAND")
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
        epilog=_STATUSES if command.target == "none" else f"{_FILES} {_STATUSES}",
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
    options.words = _with_environment(command, options, has_operands=operands is not None)
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
        add(
            "--force",
            action="store_true",
            help="accept a vmlinux of another build, and use what cannot be verified",
        )
        _add_location_options(parser)
    add("--json", action="store_true", help="one JSON object instead of text")


def _add_location_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "location of the kernel",
        "Where the kernel is, if the dump does not say it, or says it wrong. What is given is "
        "verified; with --force it is used in any case.",
    )
    add = group.add_argument
    add("--kaslr-offset", type=_kaslr_offset, metavar="HEX", help="as KERNELOFFSET in VMCOREINFO")
    add("--phys-base", type=_phys_base, metavar="NUMBER", help="as phys_base in VMCOREINFO")
    add("--vmcoreinfo", metavar="FILE", help="a file with the text of VMCOREINFO")


def _kaslr_offset(text: str) -> int:
    return _bounded(text, 16)


def _phys_base(text: str) -> int:
    return _bounded(text, 0)


def _bounded(text: str, base: int) -> int:
    found = parsing.number(text, base)
    if found is None:
        raise argparse.ArgumentTypeError(f"not a number of at most 64 bits: {text!r}")
    return found


def _with_environment(
    command: Command, options: argparse.Namespace, *, has_operands: bool
) -> list[str]:
    """``options.words`` with the files that the environment names in place of absent ones.

    If operands may follow, words that name no file are operands.
    """
    words: list[str] = options.words
    vmlinux, vmcore = (os.environ.get(name) or None for name in (_VMLINUX, _VMCORE))
    if command.target == "none":
        return words
    if command.vmlinux == "no" or getattr(options, "hypervisor", False):
        given = bool(words) and (not has_operands or os.path.exists(words[0]))
        return words if given or vmcore is None else [vmcore, *words]
    files = words[:2]
    if has_operands:
        files = list(takewhile(os.path.exists, files))
    others = words[len(files) :]
    if len(files) == 1 and vmlinux is not None:
        files = [vmlinux, *files]
    elif len(files) == 1 and vmcore is not None and command.vmlinux == "required":
        files = [*files, vmcore]
    elif not files and vmcore is not None:
        files = [vmcore] if vmlinux is None else [vmlinux, vmcore]
    else:
        return words
    return [*files, *others]


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
        if getattr(options, "vmlinux", None) is not None and hasattr(options, "kaslr_offset"):
            from .linux.boot.claims import Given

            Given.of(options.kaslr_offset, options.phys_base)
    except ValueError as error:
        parser.error(str(error))


class Job:
    """One command that is run: opens the target, queries it, writes the result or the error."""

    def __init__(self, command: Command, module: ModuleType, options: argparse.Namespace) -> None:
        self._command = command
        self._module = module
        self._options = options
        #: The command's name in JSON.
        self._name = command.name
        if options.hypervisor:
            self._name += " --hypervisor"
        #: The warnings of what has been opened so far.
        self._warnings: Callable[[], Iterable[str]] = tuple
        self._writes = False

    def run(self) -> str | None:
        """Writes the result; returns why it is incomplete, if so."""
        names = self._module.Options._fields
        options = self._module.Options(**{name: getattr(self._options, name) for name in names})
        result: Result = self._module.run(self._open(), options)
        failure: str | None = getattr(result, "failure", None)

        def warnings() -> list[str]:
            return [*self._warnings(), *getattr(result, "warnings", ())]

        self._writes = True
        if self._options.json:
            body = {**result.json(), **({} if failure is None else {"failure": failure})}
            writer.write_json(self._name, self._options.vmcore, body, warnings)
        else:
            writer.write_text(result.text(), warnings)
        return failure

    def fail(self, error: object, status: ExitStatus) -> int:
        """Reports an error, after the warnings: they may explain it."""
        if self._options.json and not self._writes:
            body = {"error": str(error), "status": int(status)}
            writer.write_json(self._name, self._options.vmcore, body, self._warnings)
        else:
            writer.warn(self._warnings())
        if status != ExitStatus.BUG:
            writer.error(error)
        return status

    def _open(self) -> Any:
        """What the command is run on."""
        command, options = self._command, self._options
        if command.target == "none":
            return None
        from . import session

        dump: Dump = session.open(options.vmcore)
        self._warnings = lambda: dump.warnings
        if options.hypervisor:
            return self._open_xen(dump)
        if command.target == "dump":
            return dump
        domain = dump.domain(
            options.domain,
            options.vmlinux,
            p2m_source=options.p2m_source,
            force=options.force,
            unwind=getattr(options, "unwind", None),
            kaslr_offset=options.kaslr_offset,
            phys_base=options.phys_base,
            vmcoreinfo=options.vmcoreinfo,
        )
        self._warnings = lambda: domain.warnings
        return domain

    def _open_xen(self, dump: "Dump") -> "XenHost":
        xen = dump.xen(self._options.xen_syms, force=self._options.force)
        if xen.symbols is None:
            xen.warnings.append(
                "without xen-syms there are no names of Xen's functions and variables: its "
                "stacks, clock rate and memory size are incomplete"
            )
        self._warnings = lambda: [*dump.warnings, *xen.warnings]
        return xen
