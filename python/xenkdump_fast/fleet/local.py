"""Examines dumps on processes of this machine."""

import errno
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from . import row
from .examine import Options
from .process import Limits, Process
from .row import Row
from .sources import Source


def run(
    sources: Iterable[Source], options: Options, limits: Limits, jobs: int
) -> Iterator[tuple[Source, Row]]:
    """The rows as they are done, with ``jobs`` processes."""
    waiting: queue.Queue[Source | None] = queue.Queue(maxsize=2 * jobs)
    done: queue.Queue[tuple[Source, Row] | None] = queue.Queue()
    stopped = threading.Event()
    processes = [Process(options, limits) for _ in range(jobs)]

    def feed() -> None:
        for source in sources:
            while not stopped.is_set():
                with suppress(queue.Full):
                    waiting.put(source, timeout=0.2)
                    break
        for _ in range(jobs):
            while not stopped.is_set():
                with suppress(queue.Full):
                    waiting.put(None, timeout=0.2)
                    break

    def work(process: Process) -> None:
        try:
            while not stopped.is_set():
                try:
                    source = waiting.get(timeout=0.2)
                except queue.Empty:
                    continue
                if source is None:
                    break
                try:
                    found = process.examine(source)
                except Exception as error:  # a bug must not stop the others, nor lose the row
                    text = f"internal error: {type(error).__name__}: {error}"
                    found = row.failed(source.path, source.size, source.modified, text)
                done.put((source, found))
        finally:
            process.close()
            done.put(None)

    threads = [threading.Thread(target=feed, daemon=True)]
    threads += [threading.Thread(target=work, args=(one,), daemon=True) for one in processes]
    started = _start(threads)
    running = len(started) - 1  # without the one that feeds them
    try:
        if running < 1:
            raise OSError(errno.EAGAIN, "no thread can be started: the system allows no more")
        while running:
            one = done.get()
            if one is None:
                running -= 1
            else:
                yield one
    finally:
        stopped.set()
        for process in processes:
            process.kill()
        for thread in started:
            thread.join()


def _start(threads: Sequence[threading.Thread]) -> list[threading.Thread]:
    """Starts the threads in order, until the system refuses one; returns those started."""
    started = []
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # a limit on processes
            break
        started.append(thread)
    return started
