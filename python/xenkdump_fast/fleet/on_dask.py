"""Examines dumps on an existing Dask cluster."""

import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from . import extra, row
from .examine import Options
from .process import Limits, Process
from .row import Row
from .sources import Source

#: Dumps that are submitted ahead, per thread of the cluster.
_AHEAD = 4
#: The processes of a Dask worker, by run and thread.
_processes: dict[tuple[str, int], Process] = {}


def run(
    sources: Iterable[Source], options: Options, limits: Limits, client: Any
) -> Iterator[tuple[Source, Row]]:
    """The rows as they are done.

    A dump whose worker is lost is given to another one by the scheduler; after
    ``distributed.scheduler.allowed-failures`` it is a failed row.
    """
    distributed = extra.module("distributed")
    waiting = iter(sources)
    threads = sum(client.nthreads().values()) or 1
    by_key: dict[str, Source] = {}
    token = secrets.token_hex(8)

    def submit(source: Source) -> Any:
        key = f"xkdump-triage-{token}-{source.key}"
        by_key[key] = source
        return client.submit(
            examine, token, tuple(source), tuple(options), tuple(limits), key=key, pure=False
        )

    done = distributed.as_completed([submit(one) for one in islice(waiting, threads * _AHEAD)])
    try:
        for future in done:
            source = by_key.pop(future.key)
            try:
                found: Row = future.result()
            except Exception as error:  # of the cluster: what a dump causes is a row already
                text = f"the cluster: {type(error).__name__}: {error}"
                found = row.failed(source.path, source.size, source.modified, text[:500])
            future.release()
            yield source, found
            for another in islice(waiting, 1):
                done.add(submit(another))
    finally:
        done.clear()
        with suppress(Exception):  # they end when they are idle, too
            client.run(close, token)


def examine(
    token: str, source: tuple[Any, ...], options: tuple[Any, ...], limits: tuple[Any, ...]
) -> Row:
    """One dump, in a process that belongs to this thread of the Dask worker."""
    key = (token, threading.get_ident())
    if key not in _processes:
        _processes[key] = Process(Options(*options), Limits(*limits))
    return _processes[key].examine(Source(*source))


def close(token: str) -> None:
    """Ends the processes of a run on this Dask worker."""
    for key in [key for key in _processes if key[0] == token]:
        _processes.pop(key).kill()
