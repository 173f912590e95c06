"""Runs the lines of a shell: finds the command, runs it, and reports whatever goes wrong."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from .. import arguments, progress
from ..commands import Command, hints
from ..commands.contract import UsageError
from ..job import ExitStatus, Job, explain
from ..output import progress_line, writer
from ..output.writer import Stream, Writer
from . import builtins, line, output, parser
from .filters import FinishedError
from .session import ALL, DUMP, HYPERVISOR, Session
from .state import State, available


class ShellWriter(Writer):
    """Prints each warning about a target once in a session."""

    def __init__(self, session: Session, stream: Stream, name: str, where: int | str) -> None:
        super().__init__(stream, name)
        self._session = session
        self._where = where

    def warn(self, warnings: Iterable[str]) -> None:
        """Prints the warnings that have not been printed yet."""
        super().warn(self._session.unreported([*warnings], self._where))


class Shell(State):
    """Runs lines on a session."""

    @property
    def prompt(self) -> str:
        """The prompt; it names the current domain."""
        where = self.session.context.where
        if where in (ALL, HYPERVISOR):
            return f"xkdump {where}> "
        return f"xkdump dom{where}> " if self.session.has_domains else "xkdump> "

    def run(self, text: str) -> int:
        """Runs a line; returns the highest exit status of its commands.

        Raises LeaveError if the shell is to be left, and KeyboardInterrupt; BrokenPipeError and
        WriteError if stdout cannot be written.
        """
        status = 0
        try:
            pipelines = line.parse(text)
        except UsageError as error:
            writer.error(error)
            return ExitStatus.USAGE
        for pipeline in pipelines:
            status = max(status, self._run(pipeline))
        return status

    def _run(self, pipeline: line.Pipeline) -> int:
        progress.now.what = ""  # of a command that was interrupted
        if pipeline.escape is not None:
            return builtins.escape(self, pipeline.escape)
        is_screen = pipeline.redirection is None
        name = "stdout" if pipeline.redirection is None else pipeline.redirection.path
        status = 0
        try:
            words = self.expanded(pipeline.stages[0])
            session = self.session
            sources = [*session.dump.paths, session.vmlinux(ALL), session.xen_syms]
            files = [path for path in sources if path is not None]
            with output.opened(pipeline, self, files) as stream, suppress(FinishedError):
                status = self._command(words, stream, name)
        except writer.WriteError as error:
            if is_screen:
                raise
            writer.error(error)
            return ExitStatus.OUTPUT
        except (BrokenPipeError, builtins.LeaveError):
            raise
        except KeyboardInterrupt:
            if not is_screen or not sys.stdout.isatty():
                writer.incomplete(name)
            raise
        except Exception as error:
            message, status = explain(error)
            writer.error(message)
        return status

    def _command(self, words: Sequence[str], stream: Stream, name: str) -> int:
        """Runs a command or a built-in one."""
        first, *rest = words
        show = Writer(stream, name)
        builtin = builtins.TABLE.get(first)
        command = available().get(first)
        try:
            if builtin is not None:
                return builtin.run(
                    self, rest, show, partial(self._command, stream=stream, name=name)
                )
            if command is not None:
                return self._job(command, rest, stream, name)
        except parser.HelpError as help_:
            show.text(str(help_).rstrip("\n").split("\n"))
            return ExitStatus.OK
        raise UsageError(f"{first}: no such command; {hints.in_shell(first)}")

    def _job(self, command: Command, words: Sequence[str], stream: Stream, name: str) -> int:
        session = self.session
        module = arguments.command_module(command)
        options = parser.parse(command, module, words, session.context)
        where: int | str = DUMP
        if options.hypervisor:
            where = HYPERVISOR
        elif command.vmlinux != "no":
            options.domain = where = session.place(options.domain)
        self._complete(options, where)
        output = ShellWriter(session, stream, name, where)
        job = Job(command, module, options, session, output)
        try:
            with progress_line.shown(command.name):
                return job.run()
        except FinishedError:
            job.cut()
            raise
        except (BrokenPipeError, writer.WriteError):
            raise
        except Exception as error:
            return job.fail(*explain(error))

    def _complete(self, options: argparse.Namespace, where: int | str) -> None:
        """Sets what the command line of a single command has besides the command's own options."""
        session = self.session
        task = session.context.tasks.get(where) if isinstance(where, int) else None
        vmlinux = session.vmlinux(where)
        given = {
            "vmcore": session.path,
            "vmlinux": vmlinux,
            "xen_syms": session.xen_syms,
            "kernels": [] if vmlinux is None else [vmlinux],
            "task": None if task is None else f"{task.address:#x}",
            "notes": [],
        }
        for name, value in given.items():
            if not getattr(options, name, None):
                setattr(options, name, value)
