"""Writes small forged dumps, to learn on and to test with. Never imports the reader.

::

    from xenkdump_forge import forge
    sample = forge("/tmp/demo", "modern")
    sample.vmcore, sample.vmlinux, sample.plan

``build`` gives the parts of a sample unwritten; ``faults`` holds ways to break them.
``forge_sparse`` writes a dump as large as a big host's.
"""

from typing import TYPE_CHECKING, Any

from .errors import SampleError
from .kinds import KINDS

if TYPE_CHECKING:
    from .sparse import SparseDump, forge_sparse
    from .writing import Sample, build, forge

__all__ = ["KINDS", "Sample", "SampleError", "SparseDump", "build", "forge", "forge_sparse"]


def __getattr__(name: str) -> Any:
    """Loads the rest when it is asked for: the command line names the kinds at every start."""
    if name in ("Sample", "build", "forge"):
        from . import writing as module
    elif name in ("SparseDump", "forge_sparse"):
        from . import sparse as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
