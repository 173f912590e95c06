"""A line on the terminal while a command takes its time.

Only where stderr is a terminal, and only after a second; it is gone before anything else is said.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..progress import now

#: Seconds before the line appears, and between two of them.
PATIENCE = 1.0
PERIOD = 0.2

#: What takes the line away, while there may be one.
_ends: list[Callable[[], None]] = []


@contextmanager
def shown(command: str) -> Iterator[None]:
    """Shows how far what is done within has come, until ``stop`` is called."""
    if sys.stderr.isatty():
        _ends.append(_start(command))
    try:
        yield
    finally:
        stop()


def stop() -> None:
    """Takes the line away, before something else is written."""
    while _ends:
        _ends.pop()()


def _start(command: str) -> Callable[[], None]:
    # Not needed, and so not loaded, where there is no terminal.
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
