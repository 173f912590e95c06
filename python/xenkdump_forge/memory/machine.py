"""Machine memory: the frames that were written to, and the pool of free ones."""

from __future__ import annotations

import random
from collections.abc import Iterable

PAGE = 4096


class MachineMemory:
    """``size`` bytes of machine memory; ``holes`` are not in the dump."""

    def __init__(self, size: int, holes: Iterable[tuple[int, int]] = ()) -> None:
        self.size = size
        self.holes = sorted(holes)
        self.frames: dict[int, bytearray] = {}

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The (start, end) of the machine addresses in the dump."""
        out = []
        at = 0
        for start, end in self.holes:
            if start > at:
                out.append((at, min(start, self.size)))
            at = max(at, end)
        if at < self.size:
            out.append((at, self.size))
        return out

    def frame(self, mfn: int) -> bytearray:
        """The bytes of a frame, initially zeros."""
        frame = self.frames.get(mfn)
        if frame is None:
            frame = self.frames[mfn] = bytearray(PAGE)
        return frame

    def write(self, address: int, data: bytes) -> None:
        """Writes at a machine address."""
        done = 0
        while done < len(data):
            mfn, offset = divmod(address + done, PAGE)
            n = min(PAGE - offset, len(data) - done)
            self.frame(mfn)[offset : offset + n] = data[done : done + n]
            done += n

    def read(self, address: int, size: int) -> bytes:
        """Reads at a machine address; zeros where nothing was written."""
        out = bytearray()
        while len(out) < size:
            mfn, offset = divmod(address + len(out), PAGE)
            n = min(PAGE - offset, size - len(out))
            out += self.frames.get(mfn, bytes(PAGE))[offset : offset + n]
        return bytes(out)


class FramePool:
    """Free frames, allocated in runs that are scattered over the host."""

    def __init__(self, ranges: Iterable[tuple[int, int]], rng: random.Random) -> None:
        self.extents: list[tuple[int, int]] = []
        lengths = (1, 1, 2, 3, 7, 16, 48, 160, 512, 1024)
        for start, end in ranges:
            at = start
            while at < end:
                n = min(rng.choice(lengths), end - at)
                self.extents.append((at, n))
                at += n
        rng.shuffle(self.extents)

    @property
    def free(self) -> int:
        """The number of free frames."""
        return sum(n for _, n in self.extents)

    def take(self, count: int) -> list[range]:
        """Allocates ``count`` frames, as runs."""
        out = []
        while count:
            if not self.extents:
                raise ValueError("the host has no frames left")
            start, n = self.extents.pop()
            if n > count:
                self.extents.append((start + count, n - count))
                n = count
            out.append(range(start, start + n))
            count -= n
        return out
