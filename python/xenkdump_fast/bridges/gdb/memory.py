"""The memory that gdb reads: the kernel's, and user memory of the selected thread."""

from functools import lru_cache

from ..._native import AbsentError, AddressSpace, MemoryFault
from ...linux.boot.image import link_base
from ...linux.tasks import Task
from ...session import Domain

_PAGE = 4096
#: Address spaces of tasks that are kept.
_SPACES = 64


class Memory:
    """The virtual memory of a kernel and of its tasks."""

    def __init__(self, domain: Domain) -> None:
        kernel = domain.kernel
        self._domain = domain
        self._last = kernel.last
        #: The lowest address of the kernel.
        self._kernel = 1 << 63 if kernel.word == 8 else link_base(kernel.image, kernel.symbols)
        self._user = lru_cache(_SPACES)(domain.user)

    def read(self, task: Task | None, address: int, size: int) -> bytes:
        """Up to ``size`` bytes at an address: less if memory behind them cannot be read.

        ``task`` is the one whose user memory is read. Raises AbsentError if it has none, and
        MemoryFault if the first byte cannot be read.
        """
        size = min(size, self._last + 1 - address)
        if address >= self._kernel:
            return _read(self._domain.virtual, address, size)
        if task is None:
            raise AbsentError("no task is selected, whose user memory this would be")
        return _read(self._user(task), address, min(size, self._kernel - address))


def _read(space: AddressSpace, address: int, size: int) -> bytes:
    try:
        return space.read(address, size)
    except MemoryFault:
        if address // _PAGE == (address + size - 1) // _PAGE:
            raise
    found = bytearray()
    while size:
        part = min(size, _PAGE - address % _PAGE)
        try:
            found += space.read(address, part)
        except MemoryFault:
            if not found:
                raise
            break
        address, size = address + part, size - part
    return bytes(found)
