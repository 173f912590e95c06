"""The layer of volatility3 with a domain's physical memory.

A layer is made from its configuration, which consists of texts and numbers. So the memory of a
domain is known by a key.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from volatility3.framework import exceptions, interfaces
from volatility3.framework.configuration import requirements

from ..._native import AddressSpace, MemoryFault

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAGE = 4096


class DomainLayer(interfaces.layers.DataLayerInterface):  # type: ignore[misc]
    """Physical memory of a domain, as ``Domain.as_bare()`` shows it."""

    _direct_metadata: ClassVar[dict[str, Any]] = {"architecture": "Unknown", "os": "Linux"}
    #: What was registered, by key.
    _known: ClassVar[dict[str, tuple[AddressSpace, "NDArray[np.uint64]"]]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._key: str = self.config["key"]
        self._maximum = self._find_maximum()

    @classmethod
    def register(cls, key: str, memory: AddressSpace, runs: "NDArray[np.uint64]") -> None:
        """Makes memory known; ``runs`` are the first pfns and the counts of pages that it holds."""
        cls._known[key] = memory, runs

    @classmethod
    def forget(cls, key: str) -> None:
        """Removes what was registered."""
        cls._known.pop(key, None)

    @property
    def _memory(self) -> AddressSpace:
        return self._known[self._key][0]

    @property
    def _runs(self) -> "NDArray[np.uint64]":
        return self._known[self._key][1]

    def _find_maximum(self) -> int:
        if not len(self._runs):
            return _PAGE - 1
        first, count = (int(number) for number in self._runs[-1])
        return (first + count) * _PAGE - 1

    @property
    def maximum_address(self) -> int:
        """The last address."""
        return self._maximum

    @property
    def minimum_address(self) -> int:
        """The first address."""
        return 0

    def _held(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts between two addresses that are held: start and end, ascending."""
        runs = self._runs
        row = int(np.searchsorted(runs[:, 0], np.uint64(start // _PAGE), side="right"))
        for first, count in runs[max(row - 1, 0) :].tolist():
            low, high = max(first * _PAGE, start), min((first + count) * _PAGE, end)
            if first * _PAGE >= end:
                return
            if low < high:
                yield low, high

    def is_valid(self, offset: int, length: int = 1) -> bool:
        """Whether all of these bytes are held."""
        end = offset + length
        if not 0 <= offset < end <= self._maximum + 1:
            return False
        for low, high in self._held(offset, end):
            if low > offset:
                return False
            offset = high
        return offset >= end

    def read(self, offset: int, length: int, pad: bool = False) -> bytes:
        """The bytes from ``offset`` on; with ``pad``, zeros for what cannot be read."""
        try:
            return self._memory.read(offset, length)
        except MemoryFault as fault:
            if not pad:
                raise exceptions.InvalidAddressException(
                    self.name, fault.address, str(fault)
                ) from None
        data = bytearray(length)
        if 0 <= offset <= self._maximum:
            for low, high in self._held(offset, offset + length):
                for at in range(low, high, _PAGE):
                    size = min(_PAGE, high - at)
                    with suppress(MemoryFault):
                        data[at - offset : at - offset + size] = self._memory.read(at, size)
        return bytes(data)

    def _scan_iterator(
        self,
        scanner: interfaces.layers.ScannerInterface,
        sections: Iterable[tuple[int, int]],
    ) -> Iterable[Any]:
        """What a scanner reads: volatility3 leaves out whole chunks that have a hole."""
        held = (
            (low, high - low)
            for start, size in sections
            for low, high in self._held(max(start, 0), min(start + size, self._maximum + 1))
        )
        found: Iterable[Any] = super()._scan_iterator(scanner, held)
        return found

    def write(self, offset: int, data: bytes) -> None:
        """A dump is not written to."""
        raise NotImplementedError("a dump cannot be written to")

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        """Its configuration."""
        return [
            requirements.StringRequirement(
                name="key", description="what its memory was registered by", optional=False
            )
        ]
