"""A worker process, as its owner sees it: it may hang or die, and is then replaced."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import NamedTuple, cast

from ..limits import MAX_DUMPS_PER_WORKER, MAX_TRIAGE_MESSAGE
from . import row
from .examine import Options
from .row import Row
from .sources import Source

_PIECE = 1 << 16


class Limits(NamedTuple):
    """What one dump may take."""

    #: Seconds.
    timeout: float = 300.0
    #: Bytes of the worker's own memory; mapped pages of the dump do not count. 0: no limit.
    memory: int = 2 << 30


class Process:
    """Examines one dump after the other in a process of its own."""

    def __init__(self, options: Options, limits: Limits) -> None:
        self._options = options
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._count = 0

    def examine(self, source: Source) -> Row:
        """The row of a dump. A worker that hangs, dies or lacks memory gives a row, too."""
        begun = time.monotonic()
        if self._child is not None and self._is_used_up(self._child):
            self.close()
        if self._child is None:
            try:
                self._child = self._start()
            except OSError as reason:  # out of processes or memory
                error = f"its worker cannot be started: {reason}"
                return row.failed(source.path, source.size, source.modified, error)
        self._count += 1
        request = {
            "path": source.path,
            "size": source.size,
            "modified": source.modified,
            "options": self._options._asdict(),
        }
        try:
            found = self._ask(self._child, json.dumps(request).encode() + b"\n")
        except TimeoutError:
            error = f"not done within {self._limits.timeout:g} s"
        except OSError as reason:
            error = f"its worker cannot be reached: {reason}"
        except (ValueError, RecursionError) as reason:
            error = f"its worker's answer is invalid: {reason}"
        else:
            if found is not None:
                return found
            error = self._why()
        self.close()
        failed = row.failed(source.path, source.size, source.modified, error)
        failed["duration"] = round(time.monotonic() - begun, 3)
        return failed

    def _is_used_up(self, child: "subprocess.Popen[bytes]") -> bool:
        """Whether it is to be replaced: it was idle for too long, or has done its share."""
        return child.poll() is not None or self._count >= MAX_DUMPS_PER_WORKER

    def _start(self) -> "subprocess.Popen[bytes]":
        self._count = 0
        memory = str(self._limits.memory)
        return subprocess.Popen(
            # -P: no modules from the current directory, which may be that of the dumps.
            [sys.executable, "-P", "-m", f"{__package__}.worker", memory, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the owner, which ends its workers.
            start_new_session=True,
        )

    def _ask(self, child: "subprocess.Popen[bytes]", request: bytes) -> Row | None:
        """The answer; None if the worker died. Raises TimeoutError."""
        assert child.stdin is not None
        assert child.stdout is not None
        end = time.monotonic() + self._limits.timeout
        try:
            child.stdin.write(request)
            child.stdin.flush()
        except BrokenPipeError:
            return None
        answer = bytearray()
        while not answer.endswith(b"\n"):
            left = end - time.monotonic()
            if left <= 0 or not select.select([child.stdout], [], [], left)[0]:
                raise TimeoutError
            piece = os.read(child.stdout.fileno(), _PIECE)
            if not piece or len(answer) > MAX_TRIAGE_MESSAGE:
                return None
            answer += piece
        found = json.loads(answer)
        if not isinstance(found, dict):
            raise ValueError("not a row")
        return cast(Row, found)

    def _why(self) -> str:
        """Why the worker died."""
        assert self._child is not None
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(10)
        code = self._child.returncode
        if code is not None and code < 0:
            with suppress(ValueError):
                name = signal.Signals(-code).name
                return f"its worker was ended by {name}: out of memory, or a bug"
        return f"its worker ended with status {code}"

    def kill(self) -> None:
        """Ends the worker from another thread; ``examine`` then returns."""
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        """Ends the worker."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
