"""``xkdump``: dispatch, and the files of the command line."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import cached_property

from . import arguments, resource_limits
from ._typing import TYPE_CHECKING
from .commands import COMMANDS
from .job import ExitStatus, Job, explain
from .output import progress_line, writer
from .output.writer import Writer

if TYPE_CHECKING:
    from .session import Domain, Dump
    from .xen.host import XenHost

__all__ = ["ExitStatus", "main"]

#: The command for files without one.
_SHELL = "shell"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    _prepare_streams()
    # numpy's OpenBLAS, which is never used, allocates memory for each CPU when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        try:
            return _main(argv)
        finally:
            # What drgn and scripts have printed may be buffered still.
            writer.flush_stdout()
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
    if [*argv] in (["-V"], ["--version"]):
        # Without the parsers of all commands.
        Writer().text([arguments.version()])
        return ExitStatus.OK
    if argv and argv[0] == "help":
        argv = [*argv[1:2], "--help"]
    if argv and argv[0] not in COMMANDS and os.path.exists(argv[0]):
        argv = [_SHELL, *argv]
    if not argv or argv[0] not in COMMANDS:
        from .commands import hints

        overview = arguments.overview()
        hint = hints.on_command_line(argv)
        if hint is not None:
            overview.error(hint)
        overview.parse_args(argv)
        return ExitStatus.USAGE
    command = COMMANDS[argv[0]]
    # Only the command's own module is loaded: every module and every parser costs milliseconds.
    module = arguments.command_module(command)
    options = arguments.parse(command, module, argv[1:])
    targets = Files(options)
    job = Job(command, module, options, targets, Writer())
    try:
        resource_limits.check()
        if command.name == _SHELL:
            from .shell import main as shell

            return shell.start(targets, options)
        with progress_line.shown(command.name):
            return job.run()
    except (BrokenPipeError, writer.WriteError):
        raise
    except Exception as error:
        return job.fail(*explain(error))


def _discard_output() -> None:
    """Lets the flush at the end of the process succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    # A stream that the caller has closed gets a descriptor, usually its own: no file that is opened
    # later has its number. That of stdout cannot be written, so that lost output is an error.
    for name, flags, mode in (
        ("stdin", os.O_RDONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, closefd=False))
        # A name in a dump may have characters that the terminal's encoding lacks.
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Files:
    """The files of the command line, opened when they are needed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    @cached_property
    def dump(self) -> "Dump":
        """The dump."""
        from . import session

        options = self._options
        files = [options.vmcore, *options.parts]
        return session.open(files, format=options.format, cache_dir=options.cache_dir)

    def domain(
        self, number: int | str, vmlinux: str | None, unwind: "Sequence[str] | None"
    ) -> "Domain":
        """A domain of it, opened with the options about its kernel."""
        options = self._options
        return self.dump.domain(
            number,
            vmlinux,
            p2m_source=options.p2m_source,
            force=options.force,
            unwind=unwind,
            kaslr_offset=options.kaslr_offset,
            phys_base=options.phys_base,
            vmcoreinfo=options.vmcoreinfo,
        )

    @cached_property
    def xen(self) -> "XenHost":
        """Its hypervisor, with the symbols in xen-syms."""
        xen = self.dump.xen(self._options.xen_syms, force=self._options.force)
        if xen.symbols is None:
            xen.warnings.append(
                "without xen-syms there are no names of Xen's functions and variables: its "
                "stacks, clock rate and memory size are incomplete"
            )
        return xen
