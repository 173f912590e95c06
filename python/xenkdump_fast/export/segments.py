"""The order of the program headers of a domain's ELF file: by physical address.

volatility3's Elf64Layer looks a physical address up by a binary search over the segments, in the
order of their headers. The segments of the kernel's image are the same memory once more: behind
all others, they hide the memory above them. Sorted, and with the linear mapping cut where the
image ends, each search ends at a segment that has the address.
"""

import struct
from typing import TYPE_CHECKING

from .mapping import Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ELFCLASS64 = 2
_PT_LOAD = 1
#: e_phnum of a file whose section header 0 has the number.
_PN_XNUM = 0xFFFF
#: Of a file and of a segment with 64 bits: what is needed here.
_PHOFF, _PHENTSIZE, _P_PADDR = 32, 54, 24
_FILE_HEADER = 64


def cut(runs: "NDArray[np.uint64]", image: Mapping) -> "NDArray[np.uint64]":
    """The runs, with a cut where the image ends."""
    import numpy as np

    _, first, count = image
    end = first + count
    found = []
    for start, size in runs.tolist():
        before = end - start
        if 0 < before < size:
            found += [(start, before), (end, size - before)]
        else:
            found.append((start, size))
    return np.array(found, np.uint64).reshape(-1, 2)


def sort(path: str) -> None:
    """Sorts the headers of type PT_LOAD of an ELF64 file, in place; the others stay in front.

    A file with ELF32 has no segments of an image. One with 65535 headers or more stays as it is:
    volatility3 does not know where their number is.
    """
    with open(path, "r+b") as file:
        header = file.read(_FILE_HEADER)
        (start,) = struct.unpack_from("<Q", header, _PHOFF)
        size, count = struct.unpack_from("<HH", header, _PHENTSIZE)
        if header[4] != _ELFCLASS64 or count == _PN_XNUM:
            return
        file.seek(start)
        table = file.read(count * size)
        headers = [table[i : i + size] for i in range(0, len(table), size)]
        file.seek(start)
        headers.sort(key=_place)
        file.write(b"".join(headers))


def _place(header: bytes) -> tuple[bool, int]:
    (kind,) = struct.unpack_from("<I", header)
    (physical,) = struct.unpack_from("<Q", header, _P_PADDR)
    return kind == _PT_LOAD, physical
