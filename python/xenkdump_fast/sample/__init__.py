"""Writes small forged dumps, to learn on and to test with. Imports nothing that reads dumps.

::

    from xenkdump_fast.sample import forge
    sample = forge("/tmp/demo", "modern")
    sample.vmcore, sample.vmlinux, sample.plan

``build`` gives the parts of a sample unwritten; ``faults`` holds ways to break them.
``forge_sparse`` writes a dump as large as a big host's.
"""

from .errors import SampleError
from .forge import KINDS, Sample, build, forge
from .sparse import SparseDump, forge_sparse

__all__ = ["KINDS", "Sample", "SampleError", "SparseDump", "build", "forge", "forge_sparse"]
