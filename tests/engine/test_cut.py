"""A dump that is truncated while batches run: results are correct, or reported as missing."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from xenkdump_fast._native import P2M, Dump
from xenkdump_forge import SparseDump, write_sparse_dump

PAGE = 4096
#: The offset at which the file is truncated: in the P2M's pages, or in the page tables after them.
#: It is inside a page; the kernel fills the rest of the page with zeros.
CUTS = ((1 << 20) + 1004, (79 << 20) + 1004)
#: Statuses for missing data: no P2M page, no page table, truncated file.
MISSING = {5, 7, 12}
ADDRESSES = 60_000
DELAYS = (0.0, 0.003, 0.01, 0.04)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> SparseDump:
    path = tmp_path_factory.mktemp("sparse") / "vmcore"
    return write_sparse_dump(path, 1 << 32, 50, 4 << 30, populated=1 << 30)


class Running(threading.Thread):
    """Runs batches until stopped, and compares each with the intact dump's results."""

    def __init__(self, sparse: SparseDump, path: Path, threads: int) -> None:
        super().__init__()
        chance = np.random.default_rng(threads)
        runs = np.array(sorted(sparse.runs), dtype=np.uint64)
        pfns = chance.choice(runs, ADDRESSES) * 512 + chance.integers(512, size=ADDRESSES)
        self.pfns = pfns.astype(np.uint64)
        self.mfns = np.array([sparse.mfn(int(pfn)) or 0 for pfn in self.pfns], dtype=np.uint64)
        self.addresses = self.pfns * PAGE + np.uint64(sparse.page_offset) + np.uint64(8)
        self.threads = threads
        dump = Dump(str(path))
        self.virtual = dump.virtual(sparse.root, "x86_64")
        self.p2m = P2M.frame_list(dump, sparse.frame_list_list, 8)
        self.done = False
        self.lost = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        status = np.zeros(ADDRESSES, dtype=np.uint8)
        over = False
        while not over:
            # Read before the batch, so that the last batch starts after the truncation.
            over = self.done
            found = self.virtual.translate(self.addresses, status=status, threads=self.threads)
            self.compare("translate", found, self.mfns * PAGE + 8, status)
            found = self.p2m.resolve(self.pfns, status=status, threads=self.threads)
            self.compare("resolve", found, self.mfns, status)

    def compare(
        self, what: str, found: np.ndarray, expected: np.ndarray, status: np.ndarray
    ) -> None:
        valid = status == 0
        if not np.array_equal(found[valid], expected[valid]):
            self.wrong.append(f"{what}: wrong frames")
        kinds = set(np.unique(status[~valid]).tolist())
        if not kinds <= MISSING:
            self.wrong.append(f"{what}: statuses {kinds}")
        self.lost += int((~valid).sum())


@pytest.mark.parametrize("threads", [1, 2])
def test_truncation_during_a_batch(sparse: SparseDump, tmp_path: Path, threads: int) -> None:
    other = Running(sparse, sparse.path, threads)
    for number, delay in enumerate(DELAYS):
        copy = tmp_path / "copy"
        subprocess.run(["cp", "--sparse=always", sparse.path, copy], check=True)
        running = Running(sparse, copy, threads)
        running.start()
        time.sleep(delay)
        os.truncate(copy, CUTS[number % 2])
        running.done = True
        running.join()
        assert running.wrong == []
        assert running.lost > 0, "tables were truncated, but no data was reported as missing"
    # Another dump in the same process is unaffected.
    other.done = True
    other.run()
    assert (other.wrong, other.lost) == ([], 0)
    shutil.rmtree(tmp_path)
