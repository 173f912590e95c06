"""Triage on a local Dask cluster of two workers, one of which is killed half-way."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conftest import PACKAGES
from xenkdump_fast import fleet
from xenkdump_fast.fleet import on_dask, row, table
from xenkdump_fast.fleet.sources import find

for package in PACKAGES:
    pytest.importorskip(package, reason=f"{package} is not installed: the extra [fleet]")
distributed = pytest.importorskip(
    "distributed", reason="distributed is not installed: the extra [fleet]"
)
# What the cluster itself warns of.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of two workers, each a process with one thread."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def test_a_worker_is_killed(dumps: Path, tmp_path: Path, client: Any) -> None:
    pids = list(client.run(os.getpid).values())
    assert len(pids) == 2

    def kill(done: int, total: int) -> None:
        if done == total // 2:
            os.kill(pids[0], signal.SIGKILL)

    # Thirty dumps: several names of the same files.
    paths = []
    for n in range(5):
        for dump in sorted(dumps.glob("*/vmcore")):
            link = tmp_path / f"{dump.parent.name}-{n}"
            link.symlink_to(dump)
            paths.append(link)
    found = fleet.triage(paths, tmp_path / "out", client, progress=kill)
    assert (found.dumps, found.examined, found.failed) == (30, 30, 0)
    rows = table.Table(tmp_path / "out").rows()
    assert Counter(one["path"] for one in rows) == Counter(map(str, paths))
    assert found.signatures == 3
    # The worker that was killed may not be back.
    assert set(client.run(lambda: len(on_dask._processes)).values()) == {0}


class LostFuture:
    key = ""

    def __init__(self, key: str) -> None:
        self.key = key

    def result(self) -> row.Row:
        raise RuntimeError("the worker was lost four times")

    def release(self) -> None:
        pass


def test_a_dump_that_kills_workers_is_a_failed_row(
    dumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def nthreads(self) -> dict[str, int]:
            return {"a": 1}

        def run(self, function: object, name: str) -> None:
            pass

        def submit(self, *_: object, key: str, pure: bool) -> LostFuture:
            return LostFuture(key)

    class Completed(list[LostFuture]):
        add = list.append

    class Distributed:
        as_completed = Completed

    monkeypatch.setattr("xenkdump_fast.fleet.extra.module", lambda name: Distributed)
    sources = list(find([str(dumps)]))
    found = list(on_dask.run(sources, fleet.Options(), fleet.Limits(), Client()))
    assert {source for source, _ in found} == set(sources)
    assert all("the worker was lost" in (one["error"] or "") for _, one in found)
