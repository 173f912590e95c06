"""The measurements on many threads: how numpy's side is divided, and the table."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benches.pairing import Figure, Pair

from benches import many_cores

ROOT = Path(many_cores.__file__).resolve().parents[1]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_parts_cover_a_batch_once(threads: int) -> None:
    source, target = np.arange(1001), np.zeros(1001, int)

    def add(part: slice) -> None:
        target[part] += source[part]

    many_cores.in_parts(1001, threads, add)()
    assert np.array_equal(source, target)


def test_the_table_has_a_column_for_each_number_of_threads() -> None:
    found: list[Pair | Figure] = [
        Figure("numpy copies of memory, 1 thread", 10.0, "GB/s"),
        Figure("numpy copies of memory, 4 threads", 25.0, "GB/s"),
        Pair("P2M", "resolve, 1 thread", "numpy take, 1 thread", 1, [1.0], [2.0]),
        Pair("P2M", "resolve, 4 threads", "resolve, 1 thread", 1, [1.0], [3.5]),
        Pair("P2M", "resolve, 4 threads", "numpy take, 4 threads", 1, [1.0], [1.5]),
        Pair("resolve, batches of 1", "threads=4", "threads=1", 1, [1.0], [1.0]),
    ]
    rows = [line.split("|")[-1].split() for line in many_cores.table(found, [1, 4]).splitlines()]
    assert rows == [
        ["against", "1", "4"],
        ["GB/s", "10.0", "25.0"],
        ["numpy", "take", "2.00x", "1.50x"],
        ["1", "thread", "3.50x"],
    ]


def test_it_imports_only_numpy_and_this_package() -> None:
    code = """
import sys
before = set(sys.modules)
import benches.many_cores
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = {name for name in done.stdout.split() if not name.startswith("_")}
    # Extension modules of numpy create the module cython_runtime.
    found -= {*sys.stdlib_module_names, "cython_runtime"}
    assert found == {"benches", "numpy", "xenkdump_fast"}
