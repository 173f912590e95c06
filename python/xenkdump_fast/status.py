"""The values of ``status`` in batch calls, one per element."""

from enum import IntEnum

from ._native import STATUS


class Status(IntEnum):
    """Why an element of a batch has no result; OK if it has one. ``str()`` gives it in words."""

    OK = 0
    #: The P2M has no frame for the pfn.
    INVALID = 1
    #: The frame belongs to another domain.
    FOREIGN = 2
    #: A hole or MMIO: the pfn is its own mfn.
    IDENTITY = 3
    #: Past the end of the P2M.
    OUT_OF_RANGE = 4
    #: The P2M page with the entry is not in the dump.
    NO_P2M_PAGE = 5
    #: A page-table entry of the walk is not present.
    NOT_PRESENT = 6
    #: A page table of the walk is not in the dump.
    NO_PAGE_TABLE = 7
    #: A page-table entry has reserved bits set.
    RESERVED_BITS = 8
    #: Not an address of the paging format.
    NOT_CANONICAL = 9
    #: No segment of the dump holds the memory.
    NO_SEGMENT = 10
    #: The memory was excluded from the dump.
    EXCLUDED = 11
    #: The dump was truncated before the memory.
    TRUNCATED = 12
    #: The operating system could not read the file.
    READ_ERROR = 13
    #: The range wraps around the end of the address space.
    WRAPS = 14
    #: No pfn has the frame.
    NO_PFN = 15
    #: The page cannot be decompressed.
    CORRUPT_PAGE = 16
    #: The memory is in a part of a split dump that is not open.
    MISSING_PART = 17
    #: The frame is mapped by a grant of another domain (translated guests, as all below).
    GRANT = 18
    #: The frame is a device's.
    MMIO = 19
    #: The device model emulates it.
    EMULATED = 20
    #: No frame yet: it is allocated on demand.
    POPULATE_ON_DEMAND = 21
    #: The memory was paged out.
    PAGED_OUT = 22
    #: The frame failed in hardware.
    BROKEN = 23

    def __str__(self) -> str:
        return STATUS[self]
