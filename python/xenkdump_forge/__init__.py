"""Writes small synthetic dumps, for learning and for tests. Never imports the reader.

::

    from xenkdump_forge import write_dump
    dump = write_dump("/tmp/demo", "modern")
    dump.vmcore, dump.vmlinux, dump.plan

``build`` returns the parts of a dump before they are written, ``faults`` changes them.
``write_sparse_dump`` writes the dump of a host with terabytes.
"""

from typing import TYPE_CHECKING, Any

from .errors import SyntheticDumpError, WriteError
from .formats import COMPRESSIONS, FORMATS
from .kinds import KINDS

if TYPE_CHECKING:
    from .sparse import SparseDump, write_sparse_dump
    from .writing import SyntheticDump, build, write_dump

__all__ = [
    "COMPRESSIONS",
    "FORMATS",
    "KINDS",
    "SparseDump",
    "SyntheticDump",
    "SyntheticDumpError",
    "WriteError",
    "build",
    "write_dump",
    "write_sparse_dump",
]


def __getattr__(name: str) -> Any:
    """Imports the other names on first use: ``xkdump sample --help`` only needs the kinds."""
    if name in ("SyntheticDump", "build", "write_dump"):
        from . import writing as module
    elif name in ("SparseDump", "write_sparse_dump"):
        from . import sparse as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
