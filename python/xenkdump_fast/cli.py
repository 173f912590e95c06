"""``xkdump``: dispatch and exit status."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import arguments, isolation, resource_limits
from ._native import AbsentError, DumpError
from .commands import COMMANDS, Command
from .commands.contract import OutputError, Result, Service, UsageError
from .output import progress_line, writer

if TYPE_CHECKING:
    from .session import Domain, Dump
    from .xen.host import XenHost


class ExitStatus(IntEnum):
    """Exit statuses of ``xkdump``."""

    OK = 0
    #: The dump does not hold what was asked for.
    ABSENT = 1
    USAGE = 2
    #: A file cannot be opened or read, is not a dump, or is damaged beyond use; or the system's
    #: memory or file descriptors are exhausted.
    BROKEN = 3
    #: A bug in xkdump (EX_SOFTWARE of sysexits.h).
    BUG = 70
    #: The output cannot be written (EX_IOERR).
    OUTPUT = 74
    #: Ctrl-C: 128 and the number of SIGINT, as shells report it.
    INTERRUPTED = 130


#: Exit statuses by the class of an exception, the first that fits.
_STATUSES: tuple[tuple[type[Exception], ExitStatus], ...] = (
    (UsageError, ExitStatus.USAGE),
    (OutputError, ExitStatus.OUTPUT),
    (AbsentError, ExitStatus.ABSENT),
    (DumpError, ExitStatus.BROKEN),
)
#: What to do if the system, not the file, is why it cannot be opened.
_REMEDIES = {
    errno.EMFILE: " (the limit of this process: ulimit -n)",
    errno.ENFILE: " (the limit of the system: sysctl fs.file-max)",
    errno.ENOMEM: " (the limits of memory: ulimit -v, cgroups)",
}


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
        arguments.overview().parse_args(argv)
        return ExitStatus.USAGE
    command = COMMANDS[argv[0]]
    # Only the command's own module is loaded: every module and every parser costs milliseconds.
    module = arguments.command_module(command)
    job = Job(command, module, arguments.parse(command, module, argv[1:]))
    try:
        resource_limits.check()
        with progress_line.shown(command.name):
            return job.run()
    except (BrokenPipeError, writer.WriteError):
        raise
    except Exception as error:
        return job.fail(*_explain(error))


def _explain(error: Exception) -> tuple[str, ExitStatus]:
    """The message and the exit status for the exception that is being handled.

    The traceback of a bug is printed; the tests let such exceptions pass.
    """
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    if status is not None:
        return str(error), status
    if isolation.strict and not isinstance(error, OSError | ImportError):
        raise error  # a fault injected into a dump must not exhaust memory either
    if isinstance(error, MemoryError):
        return f"out of memory: {error}".removesuffix(": "), ExitStatus.BROKEN
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        text = f"{where}{error.strerror or error}{_REMEDIES.get(error.errno or 0, '')}"
        return text, ExitStatus.BROKEN
    if isinstance(error, ImportError):
        # numpy is missing, or a limit on memory is too low for its libraries.
        reason = str(error.__cause__ or error).partition("\n")[0]
        return f"a module cannot be imported: {reason}", ExitStatus.BROKEN
    writer.bug()
    return f"{type(error).__name__}: {error}", ExitStatus.BUG


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
        elif options.all_domains:
            self._name += " --domain all"
        #: The warnings of what has been opened so far.
        self._warnings: Callable[[], Iterable[str]] = tuple
        self._writes = False

    def run(self) -> int:
        """Writes the result; returns the exit status."""
        names = self._module.Options._fields
        options = self._module.Options(**{name: getattr(self._options, name) for name in names})
        if self._options.all_domains:
            return self._run_on_all(options)
        if self._command.interactive:
            service: Service = self._module.run(self._open(), options)
            writer.warn(self._warnings())
            service.serve()
            return ExitStatus.OK
        result: Result = self._module.run(self._open(), options)
        failure: str | None = getattr(result, "failure", None)

        def warnings() -> list[str]:
            return [*self._warnings(), *getattr(result, "warnings", ())]

        data: bytes | None = getattr(result, "data", None)
        if data is not None and self._options.json:
            raise UsageError("argument --json: not allowed with bytes on stdout")
        self._writes = True
        if data is not None:
            writer.write_bytes(data, warnings)
        elif self._options.json:
            body = {**result.json(), **({} if failure is None else {"failure": failure})}
            writer.write_json(self._name, self._options.vmcore, body, warnings)
        else:
            writer.write_text(result.text(), warnings)
        if failure is None:
            return ExitStatus.OK
        writer.error(failure)
        return ExitStatus.ABSENT

    def _run_on_all(self, options: Any) -> int:
        """Writes the results of all domains; returns the highest exit status of one."""
        from .all_domains import AllDomains, Failure

        dump = self._open_dump()
        every = AllDomains(
            dump,
            self._options.vmlinux,
            lambda number, vmlinux: self._open_domain(dump, number, vmlinux),
            lambda domain: self._module.run(domain, options),
            lambda error: Failure(*_explain(error)),
        )
        _ = dump.domain_ids
        self._writes = True
        if self._options.json:
            every.write_json(self._name, self._options.notes)
        else:
            every.write_text(self._options.notes)
        return every.status

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
        dump = self._open_dump()
        if options.hypervisor:
            return self._open_xen(dump)
        if command.target == "dump":
            return dump
        domain = self._open_domain(dump, options.domain, options.vmlinux)
        notes = options.notes
        self._warnings = lambda: [*notes, *domain.warnings]
        if options.vmlinux is None and command.vmlinux == "required":
            _ = domain.kernel  # which also finds what commands read besides it
        return domain

    def _open_dump(self) -> "Dump":
        from . import session

        options = self._options
        files = [options.vmcore, *options.parts]
        dump = session.open(files, format=options.format, cache_dir=options.cache_dir)
        self._warnings = lambda: dump.warnings
        return dump

    def _open_domain(self, dump: "Dump", number: int | str, vmlinux: str | None) -> "Domain":
        options = self._options
        return dump.domain(
            number,
            vmlinux,
            p2m_source=options.p2m_source,
            force=options.force,
            unwind=getattr(options, "unwind", None),
            kaslr_offset=options.kaslr_offset,
            phys_base=options.phys_base,
            vmcoreinfo=options.vmcoreinfo,
        )

    def _open_xen(self, dump: "Dump") -> "XenHost":
        xen = dump.xen(self._options.xen_syms, force=self._options.force)
        if xen.symbols is None:
            xen.warnings.append(
                "without xen-syms there are no names of Xen's functions and variables: its "
                "stacks, clock rate and memory size are incomplete"
            )
        notes = self._options.notes
        self._warnings = lambda: [*notes, *dump.warnings, *xen.warnings]
        return xen
