"""Triage of many dumps: ``python -m benches.triage [--dumps N] [--jobs N] [--dask]``.

Writes synthetic dumps of ten crashes, and prints how many per second are examined by processes of
this machine. With ``--dask`` also by a local cluster, one worker of which is killed half-way; every
dump must have one row.
"""

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from xenkdump_fast import fleet
from xenkdump_fast.fleet.table import Table
from xenkdump_forge import faults, write_dump

CRASHES = (
    *("null-dereference", "page-fault", "general-protection", "divide-error", "bug"),
    *("warning", "soft-lockup", "hung-task", "panic", "xen-page-fault"),
)


def write(directory: Path, number: int) -> None:
    """Writes one of the dumps."""
    write_dump(
        directory / f"{number:04}",
        "modern",
        memory=64 << 20,
        seed=number,
        crash=CRASHES[number % len(CRASHES)],
        kernel_build=number // len(CRASHES),
        extra=faults.touched_only,
    )


def measure(name: str, dumps: Path, count: int, client: Any = None, **options: Any) -> None:
    """Prints the rate of one run, and checks its rows."""
    with tempfile.TemporaryDirectory(prefix="triage-") as out:
        begun = time.monotonic()
        found = fleet.triage([dumps], out, client, **options)
        seconds = time.monotonic() - begun
        rows = Table(out).rows()
    assert Counter(row["path"] for row in rows).most_common(1)[0][1] == 1
    assert (len(rows), found.failed) == (count, 0), found
    assert found.signatures == min(count, len(CRASHES)), found
    print(f"{name}: {count} dumps in {seconds:.1f} s, {count / seconds:.1f} per second")


def on_cluster(dumps: Path, count: int) -> None:
    """Two workers; one is killed half-way."""
    distributed: Any = import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())

        def kill(done: int, total: int) -> None:
            if done == total // 2:
                os.kill(pids[0], signal.SIGKILL)

        measure("Dask, one of two workers killed", dumps, count, client, progress=kill)


def main() -> None:
    """Writes the dumps and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dumps", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--dask", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="triage-dumps-") as directory:
        dumps = Path(directory)
        with ProcessPoolExecutor() as pool:
            list(pool.map(write, [dumps] * args.dumps, range(args.dumps)))
        measure(f"{args.jobs} processes", dumps, args.dumps, jobs=args.jobs)
        if args.dask:
            on_cluster(dumps, args.dumps)


if __name__ == "__main__":
    main()
