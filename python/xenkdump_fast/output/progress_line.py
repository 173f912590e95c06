"""A line on the terminal that shows the progress of a long command.

It is shown if stderr is a terminal, after a second, and removed before anything else is printed.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from ..progress import now

#: Seconds before the line appears, and between updates.
PATIENCE = 1.0
PERIOD = 0.2

#: Functions that remove the line, while it may be shown.
_ends: list[Callable[[], None]] = []


class shown:  # noqa: N801 - used like a function
    """Shows the progress of the body, until ``stop`` is called."""

    __slots__ = ("_command",)

    def __init__(self, command: str) -> None:
        self._command = command

    def __enter__(self) -> None:
        if sys.stderr.isatty():
            _ends.append(_start(self._command))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stop()


def stop() -> None:
    """Removes the line, before something else is written."""
    while _ends:
        _ends.pop()()


def _start(command: str) -> Callable[[], None]:
    # Imported only if there is a terminal.
    from threading import Event, Thread

    over = Event()
    stream, begun = sys.stderr, time.monotonic()

    def tick() -> None:
        if over.wait(PATIENCE):
            return
        while True:
            stream.write(f"\r\x1b[K{_line(command, time.monotonic() - begun)}")
            stream.flush()
            if over.wait(PERIOD):
                break
        stream.write("\r\x1b[K")
        stream.flush()

    thread = Thread(target=tick, name="xkdump progress", daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    return end


def _line(command: str, seconds: float) -> str:
    text = f"xkdump {command}: {seconds:.0f} s"
    if now.what:
        text += f", {now.what} {now.done + 1} of {now.total}"
    return text
