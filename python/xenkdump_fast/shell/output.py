"""Where the output of a command goes: through filters, to the screen, a pager or a file."""

import io
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, Protocol, TextIO, cast

from ..commands.contract import OutputError, UsageError
from ..output.writer import Stream, WriteError, checked, flush_stdout
from . import filters
from .filters import FinishedError
from .line import Mode, Pipeline, Redirection
from .state import State

#: Filters that show the output by pages.
PAGERS = ("less", "more")


class _End(Protocol):
    """The end of a pipeline."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...
    def close(self) -> None: ...


class _Screen:
    """Stdout, which stays open."""

    @property
    def buffer(self) -> BinaryIO:
        """For bytes."""
        return sys.stdout.buffer

    def write(self, text: str, /) -> None:
        """Writes text."""
        checked("stdout", sys.stdout.write, text)

    def flush(self) -> None:
        """Passes on what has been written."""
        flush_stdout()

    def close(self) -> None:
        """Passes on what has been written."""
        flush_stdout()


class Pager:
    """Stdout, through a pager as soon as the text is longer than the screen.

    The pager is a program of the user's choice. It is started without a shell, and less so that it
    starts no other program itself.
    """

    def __init__(self, program: Sequence[str], *, is_secure: bool) -> None:
        self._program = program
        self._is_secure = is_secure
        size = shutil.get_terminal_size()
        #: What fits on the screen beside the prompt.
        self._lines = max(size.lines - 1, 1)
        self._columns = max(size.columns, 1)
        self._held: list[str] | None = []
        self._process: subprocess.Popen[str] | None = None

    def write(self, text: str, /) -> None:
        """Holds the first screen back, and passes on what follows."""
        if self._held is None:
            self._pass_on(text)
            return
        self._held.append(text)
        for line in text.split("\n")[:-1]:
            self._lines -= max(1, -(-len(line.expandtabs()) // self._columns))
        if self._lines < 0:
            self._start()

    def _start(self) -> None:
        environment = {**os.environ, "LESS": os.environ.get("LESS", "FRX")}
        if self._is_secure:
            environment["LESSSECURE"] = "1"
        sys.stdout.flush()
        try:
            self._process = subprocess.Popen(
                self._program,
                stdin=subprocess.PIPE,
                env=environment,
                encoding="utf-8",
                errors="backslashreplace",
            )
        except OSError:
            self._process = None  # everything at once, then
        held, self._held = self._held, None
        self._pass_on("".join(held or ()))

    def _pass_on(self, text: str) -> None:
        if self._process is None or self._process.stdin is None:
            sys.stdout.write(text)
            return
        try:
            self._process.stdin.write(text)
        except BrokenPipeError:
            raise FinishedError from None

    def flush(self) -> None:
        """Passes on what has been written to the pager."""
        with _as_finished():
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.flush()

    def close(self) -> None:
        """Waits until the user has left the pager."""
        if self._process is None:
            sys.stdout.write("".join(self._held or ()))
            sys.stdout.flush()
        else:
            _finish([self._process])

    @property
    def buffer(self) -> io.BufferedIOBase:
        """A pager shows text only."""
        raise UsageError("bytes cannot be shown: redirect them to a file")


class Programs:
    """Other programs, each of which reads the output of the one before."""

    def __init__(self, stages: Sequence[Sequence[str]], out: IO[str] | None) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._out = out
        sys.stdout.flush()
        for i, words in enumerate(stages):
            is_last = i + 1 == len(stages)
            before = self._processes[-1].stdout if i else subprocess.PIPE
            try:
                process = subprocess.Popen(
                    words,
                    stdin=before,
                    stdout=out if is_last else subprocess.PIPE,
                    encoding="utf-8",
                    errors="backslashreplace",
                )
            except OSError as error:
                self.close()
                raise UsageError(f"{words[0]}: {error.strerror or error}") from None
            if i and before is not None and not isinstance(before, int):
                before.close()
            self._processes.append(process)
        self._first = self._processes[0].stdin

    @property
    def buffer(self) -> BinaryIO:
        """For bytes."""
        return cast(TextIO, self._first).buffer

    def write(self, text: str, /) -> None:
        """Passes on text to the first program."""
        with _as_finished():
            if self._first is not None:
                self._first.write(text)

    def flush(self) -> None:
        """Passes on what has been written."""
        with _as_finished():
            if self._first is not None:
                self._first.flush()

    def close(self) -> None:
        """Waits for all programs."""
        _finish(self._processes)
        if self._out is not None:
            self._out.close()


@contextmanager
def _as_finished() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise FinishedError from None


def _finish(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Ends the input of the first program, and waits for all, which Ctrl-C is for."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if processes and (stdin := processes[0].stdin) is not None:
            with suppress(BrokenPipeError, ValueError):
                stdin.close()
        for process in processes:
            process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


class _File:
    """A file that is written."""

    def __init__(self, file: TextIO, path: str) -> None:
        self._file = file
        self._path = path
        self.buffer: BinaryIO = file.buffer

    def write(self, text: str, /) -> None:
        """Writes text."""
        self._file.write(text)

    def flush(self) -> None:
        """Passes on what has been written."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file. OutputError if what is left cannot be written."""
        try:
            self._file.close()
        except OSError as error:
            text = f"cannot write {self._path}: {error.strerror or error}"
            raise OutputError(text) from None


def open_file(redirection: Redirection, sources: Sequence[str]) -> TextIO:
    """Opens the file of a redirection for writing.

    UsageError if it exists and is not to be replaced, or if it is one of ``sources``, the files
    that are read; OutputError if it cannot be opened.
    """
    path = os.path.expanduser(redirection.path)
    for source in sources:
        with suppress(OSError):
            if os.path.samefile(source, path):
                raise UsageError(f"{path} is one of the files that are read")
    mode = {Mode.NEW: "x", Mode.REPLACE: "w", Mode.APPEND: "a"}[redirection.mode]
    if mode == "x" and os.path.exists(path) and not _has_contents(path):
        mode = "w"  # a terminal or a pipe loses nothing
    try:
        return cast(TextIO, open(path, mode, encoding="utf-8", errors="backslashreplace"))
    except FileExistsError:
        raise UsageError(f"{path} exists: >! replaces it, >> appends to it") from None
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _has_contents(path: str) -> bool:
    """Whether writing replaces something: a file, or a disk."""
    kind = os.stat(path).st_mode
    return stat.S_ISREG(kind) or stat.S_ISBLK(kind)


def pager_program() -> list[str]:
    """The user's pager: ``PAGER``, else less."""
    with suppress(ValueError):
        if words := shlex.split(os.environ.get("PAGER", "")):
            return words
    return ["less"]


@contextmanager
def opened(pipeline: Pipeline, state: State, sources: Sequence[str]) -> Iterator[Stream]:
    """The stream for the output of a pipeline's command, which is complete after the block."""
    stages = list(pipeline.stages[1:])
    redirection = pipeline.redirection
    wants_pager = state.scroll
    if stages and stages[-1][0] in PAGERS and redirection is None and len(stages[-1]) == 1:
        stages.pop()
        wants_pager = True
    first = next((i for i, stage in enumerate(stages) if stage[0] not in filters.KNOWN), None)
    if first is not None and not state.escapes:
        known = ", ".join([*filters.NAMES, *PAGERS])
        raise UsageError(
            f"{stages[first][0]}: no filter; there are {known} (last); "
            "other programs need the option --shell-escapes"
        )
    native = stages if first is None else stages[:first]
    # The filters are made last to first, and checked before a file is created.
    for words in native:
        filters.make(words, io.StringIO())
    end: _End
    file = None if redirection is None else open_file(redirection, sources)
    if first is not None:
        end = Programs(stages[first:], file)
    elif file is not None and redirection is not None:
        end = _File(file, redirection.path)
    elif wants_pager and sys.stdout.isatty() and sys.stdin.isatty():
        end = Pager(pager_program(), is_secure=not state.escapes)
    else:
        end = _Screen()
    closers: list[Callable[[], None]] = [end.close]
    stream: Stream = end
    for words in reversed(native):
        made = filters.make(words, stream)
        closers.insert(0, made.close)
        stream = made
    try:
        yield stream
    except KeyboardInterrupt:
        end.close()
        raise
    except WriteError:
        with suppress(OSError, OutputError):
            _close(closers)
        raise
    except BaseException:
        _close(closers)
        raise
    _close(closers)


def _close(closers: Sequence[Callable[[], None]]) -> None:
    *of_filters, of_end = closers
    try:
        for close in of_filters:
            close()
    finally:
        of_end()
