"""Exports, each in turn with the alternative: a copy in memory, and the compressor alone.

``python -m benches.exporting [VMLINUX VMCORE]`` prints ratios of speed, with their extremes: 1
is as fast as the alternative. Without files, a synthetic host is used.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

import xenkdump_fast as xk
from xenkdump_fast.export import Request, Source, of_domain, write
from xenkdump_fast.export.request import Compression, Format

PAGE = 4096
#: Pages that a thread of the bare compressor takes at once.
GRAIN = 256


class Pages(NamedTuple):
    """The memory that is exported, as arrays that are in memory already."""

    #: Of each run.
    runs: list[NDArray[np.uint8]]

    @classmethod
    def of(cls, source: Source) -> "Pages":
        machine = source.native.machine
        runs = []
        for first, count in source.pages.tolist():
            at = np.arange(first, first + count, dtype=np.uint64) * np.uint64(PAGE)
            runs.append(machine.read_many(at, PAGE))
        return cls(runs)

    def with_contents(self) -> Iterator[NDArray[np.uint8]]:
        """Blocks of pages that are not zero."""
        for run in self.runs:
            held = run[run.any(axis=1)]
            for start in range(0, len(held), GRAIN):
                yield held[start : start + GRAIN]


def elapsed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def copied(pages: Pages) -> None:
    """memcpy into new memory."""
    for run in pages.runs:
        run.copy()


def written(pages: Pages, path: Path) -> None:
    """The same bytes in one file, by write()."""
    path.unlink(missing_ok=True)
    with path.open("wb", buffering=0) as file:
        for run in pages.runs:
            for start in range(0, len(run), GRAIN):
                file.write(run[start : start + GRAIN].data)


def compressed(pages: Pages, compression: Compression) -> None:
    """Each page by the compressor alone, on two threads; the result is dropped."""

    def zlib_block(block: NDArray[np.uint8]) -> int:
        return sum(len(zlib.compress(page.data, 1)) for page in block)

    def zstd_block(block: NDArray[np.uint8]) -> int:
        compressor = zstandard.ZstdCompressor(level=1)
        return sum(len(compressor.compress(page.data)) for page in block)

    block = zlib_block if compression == "zlib" else zstd_block
    with ThreadPoolExecutor(2) as pool:
        sum(pool.map(block, pages.with_contents()))


def pair(name: str, ours: Callable[[], object], other: Callable[[], object], rounds: int) -> None:
    """Prints the ratio of the times of two ways, run in turn."""
    ratios = []
    for _ in range(rounds):
        theirs = elapsed(other)
        ratios.append(theirs / elapsed(ours))
    middle = statistics.median(ratios)
    print(f"{name}: {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def peak_of(files: list[str], domain: str, path: Path) -> int:
    """The largest resident size of ``xkdump export``, in bytes."""
    command = [sys.executable, "-m", "xenkdump_fast", "export", *files, "--domain", domain]
    subprocess.run([*command, "--force", "-o", str(path)], check=True, stdout=subprocess.DEVNULL)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="*")
    parser.add_argument("--domain", default="0")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", default="/dev/shm")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        path = Path(folder) / "out"
        files = options.files
        if not files:
            from xenkdump_forge import write_dump

            made = write_dump(Path(folder) / "sample", "modern")
            files = [str(made.vmlinux), str(made.vmcore)]
        print(f"peak of the process: {peak_of(files, options.domain, path) >> 20} MiB")
        domain = xk.open(files[1]).domain(options.domain, files[0])

        def export(form: Format, compression: Compression = "zlib") -> Callable[[], object]:
            request = Request(str(path), form, 0, compression, True)
            source = of_domain(domain, request)

            def run() -> None:
                path.unlink(missing_ok=True)
                write(source, request)

            return run

        pages = Pages.of(of_domain(domain, Request(str(path))))
        size = sum(run.size for run in pages.runs)
        full = sum(block.size for block in pages.with_contents())
        print(f"{size >> 20} MiB, {full >> 20} MiB of it not zero; {os.cpu_count()} CPUs")
        rounds = options.rounds
        pair("elf: speed by that of memcpy", export("elf"), lambda: copied(pages), rounds)
        pair("elf: speed by that of write()", export("elf"), lambda: written(pages, path), rounds)
        for compression in ("zlib", "zstd"):
            pair(
                f"kdump, {compression}: speed by that of the compressor",
                export("kdump", compression),
                lambda compression=compression: compressed(pages, compression),  # type: ignore[misc]
                rounds,
            )


if __name__ == "__main__":
    main()
