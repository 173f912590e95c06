"""One run of one command: queries its target, writes the result or the error.

The command line and the shell share it. They differ in their ``Targets``: the command line opens
what the command needs, the shell has it open.
"""

import argparse
import errno
from collections.abc import Callable, Iterable
from enum import IntEnum
from types import ModuleType

from . import isolation
from ._native import AbsentError, DumpError
from ._typing import TYPE_CHECKING, Any, Protocol
from .commands import Command
from .commands.contract import Operands, OutputError, Result, Service, UsageError
from .mismatch import MismatchError
from .output import writer
from .output.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .session import Domain, Dump
    from .xen.host import XenHost


class ExitStatus(IntEnum):
    """Exit statuses of ``xkdump``; the shell's is the highest of its commands."""

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


def explain(error: Exception) -> tuple[str, ExitStatus]:
    """The message and the exit status for the exception that is being handled.

    The traceback of a bug is printed; the tests let such exceptions pass.
    """
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
    if isinstance(error, MismatchError):
        return error.with_remedy("--force"), ExitStatus.ABSENT
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


class Targets(Protocol):
    """What commands are run on."""

    @property
    def dump(self) -> "Dump":
        """The dump."""

    @property
    def xen(self) -> "XenHost":
        """Its hypervisor."""

    def domain(
        self, number: int | str, vmlinux: str | None, unwind: "Sequence[str] | None"
    ) -> "Domain":
        """One of its domains; ``unwind`` limits the unwinder to some methods."""


class Job:
    """One command that is run."""

    def __init__(
        self,
        command: Command,
        module: ModuleType,
        options: argparse.Namespace,
        targets: Targets,
        output: Writer,
    ) -> None:
        self._command = command
        self._module = module
        self._options = options
        self._targets = targets
        self._writer = output
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
            service: Service = self._module.run(self._target(), options)
            self._writer.warn(self._warnings())
            service.serve()
            return ExitStatus.OK
        result: Result = self._module.run(self._target(), options)
        failure: str | None = getattr(result, "failure", None)
        if failure is not None:
            failure = self._hinted(failure)

        of_target = self._warnings
        self._warnings = lambda: [*of_target(), *getattr(result, "warnings", ())]
        data: bytes | None = getattr(result, "data", None)
        if data is not None and self._options.json:
            raise UsageError("argument --json: not allowed with bytes on stdout")
        self._writes = True
        if data is not None:
            self._writer.data(data, self._warnings)
        elif self._options.json:
            body = {**result.json(), **({} if failure is None else {"failure": failure})}
            self._writer.json(self._name, self._options.vmcore, body, self._warnings)
        else:
            self._writer.text(result.text(), self._warnings)
        if failure is None:
            return ExitStatus.OK
        writer.error(failure)
        return ExitStatus.ABSENT

    def _run_on_all(self, options: Any) -> int:
        """Writes the results of all domains; returns the highest exit status of one."""
        from .all_domains import AllDomains, Failure

        dump = self._dump()
        every = AllDomains(
            dump,
            self._options.vmlinux,
            self._domain,
            lambda domain: self._module.run(domain, options),
            lambda error: Failure(*explain(error)),
            self._writer,
        )
        _ = dump.domain_ids
        self._writes = True
        if self._options.json:
            every.write_json(self._name, self._options.notes)
        else:
            every.write_text(self._options.notes)
        return every.status

    def _hinted(self, problem: str) -> str:
        """The problem, and what a word in it is: an operand in a file's place, or a file."""
        options = self._options
        # Of a command line; in the shell there are no files.
        if not options.vmcore or not hasattr(options, "argv"):
            return problem
        operands: Operands | None = getattr(self._module, "OPERANDS", None)
        symbols = options.xen_syms if options.hypervisor else options.vmlinux
        words: Sequence[str] = getattr(options, "operands", ())
        is_of_symbols = symbols is not None and problem.startswith(f"{symbols}: ")
        if operands is None or not (is_of_symbols or words):
            return problem
        from . import arguments
        from .commands import hints  # only for errors

        files = arguments.files_of(self._command, options)
        if is_of_symbols:
            text = hints.of_missing_file(symbols, files, arguments.metavar(operands))
        else:
            text = hints.of_operand(words[0], problem, files)
        return problem if text is None else f"{problem}; {text}"

    def cut(self) -> None:
        """Prints the warnings of a command whose output is not taken to its end."""
        self._writer.warn(self._warnings())

    def fail(self, error: object, status: ExitStatus) -> int:
        """Reports an error, after the warnings: they may explain it."""
        problem = self._hinted(str(error))
        if self._options.json and not self._writes:
            body = {"error": problem, "status": int(status)}
            self._writer.json(self._name, self._options.vmcore, body, self._warnings)
        else:
            self._writer.warn(self._warnings())
        if status != ExitStatus.BUG:
            writer.error(problem)
        return status

    def _target(self) -> Any:
        """What the command is run on."""
        command, options = self._command, self._options
        name = command.without_dump
        if command.target == "none" or (name is not None and getattr(options, name) is not None):
            return None
        dump = self._dump()
        if options.hypervisor:
            xen = self._targets.xen
            notes = options.notes
            self._warnings = lambda: [*notes, *dump.warnings, *xen.warnings]
            return xen
        if command.target == "dump":
            return dump
        domain = self._domain(options.domain, options.vmlinux)
        notes = options.notes
        self._warnings = lambda: [*notes, *domain.warnings]
        if options.vmlinux is None and command.vmlinux == "required":
            _ = domain.kernel  # which also finds what commands read besides it
        return domain

    def _dump(self) -> "Dump":
        dump = self._targets.dump
        self._warnings = lambda: dump.warnings
        return dump

    def _domain(self, number: int | str, vmlinux: str | None) -> "Domain":
        return self._targets.domain(number, vmlinux, getattr(self._options, "unwind", None))
