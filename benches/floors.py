"""The least that a lookup of many pfns can do: a copy of them, and a table without checks.

The library is that of ``floors/``; its functions run without the GIL.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, c_size_t, c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .synthetic import Words

#: What they are called in results.
GATHER = "an unchecked table, 32 bits"
COPY = "a copy of the pfns"


class Floors:
    """The functions of the library, for lists in batches.

    Each batch writes its results to the start of the same array.
    """

    def __init__(self, library: Path) -> None:
        loaded = CDLL(str(library.resolve()))
        self._gather, self._copy = loaded.gather, loaded.copy
        self._gather.argtypes = [c_void_p, c_size_t, c_void_p, c_size_t, c_size_t, c_void_p]
        self._copy.argtypes = [c_void_p, c_size_t, c_size_t, c_void_p]
        self._gather.restype = self._copy.restype = None

    def gather(
        self, table: NDArray[np.uint32], pfns: Words, batch: int, out: Words
    ) -> Callable[[], None]:
        """Lookups in a table, which prefetch if it is large."""
        assert pfns.max() < len(table)
        assert len(out) >= batch

        def run() -> None:
            self._gather(
                table.ctypes.data, len(table), pfns.ctypes.data, len(pfns), batch, out.ctypes.data
            )

        return run

    def copy(self, pfns: Words, batch: int, out: Words) -> Callable[[], None]:
        """No lookup at all."""
        assert len(out) >= batch

        def run() -> None:
            self._copy(pfns.ctypes.data, len(pfns), batch, out.ctypes.data)

        return run


def in_halves(
    pool: ThreadPoolExecutor, make: Callable[[slice], Callable[[], None]], count: int
) -> Callable[[], None]:
    """Half of the list on each of two threads."""
    calls = [make(slice(0, count // 2)), make(slice(count // 2, count))]

    def run() -> None:
        for done in [pool.submit(call) for call in calls]:
            done.result()

    return run
