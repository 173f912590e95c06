"""Writes small forged dumps, to learn on and to test with. Imports nothing that reads dumps.

::

    from xenkdump_fast.sample import forge
    sample = forge("/tmp/demo", "modern")
    sample.vmcore, sample.vmlinux, sample.plan
"""

from .errors import SampleError
from .forge import KINDS, Sample, build, forge

__all__ = ["KINDS", "Sample", "SampleError", "build", "forge"]
