"""Examines dumps on an existing Dask cluster."""

import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from . import extra, row
from .examine import Options
from .process import Limits, Process
from .row import Row
from .sources import Source

#: Dumps that are submitted ahead, per thread of the cluster.
_AHEAD = 4
_own = threading.local()


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

    def submit(source: Source) -> Any:
        key = f"xkdump-triage-{source.key}"
        by_key[key] = source
        return client.submit(
            examine, tuple(source), tuple(options), tuple(limits), key=key, pure=False
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


def examine(source: tuple[Any, ...], options: tuple[Any, ...], limits: tuple[Any, ...]) -> Row:
    """One dump, in a process that belongs to this thread of the Dask worker."""
    wanted = Options(*options), Limits(*limits)
    if getattr(_own, "wanted", None) != wanted:
        if hasattr(_own, "process"):
            _own.process.close()
        _own.wanted, _own.process = wanted, Process(*wanted)
    process: Process = _own.process
    return process.examine(Source(*source))
