"""The kernel's log, in each form that printk has kept it.

=============  =======================================================================
2.6 to 3.4     a ring of bytes (``log_bytes``)
3.5 to 5.9     a ring of records: struct log, printk_log since 3.11 (``log_records``)
5.10 on        the lockless ring of descriptors and text blocks (``log_ringbuffer``)
=============  =======================================================================
"""

from ..._native import AbsentError
from ..kernel import Kernel
from .message import Lines


def lines(kernel: Kernel) -> Lines:
    """Every message that the kernel still had, the oldest first; AbsentError if it has no log.

    A damaged log gives what can be read of it; ``kernel.warnings`` says what was damaged, once one
    has gone through it.
    """
    if "prb" in kernel.symbols:
        from . import lockless_ring as generation
    elif "log_first_idx" in kernel.symbols and "log_next_idx" in kernel.symbols:
        from . import record_ring as generation  # type: ignore[no-redef]
    elif "log_buf" in kernel.symbols:
        from . import bytes_ring as generation  # type: ignore[no-redef]
    else:
        raise AbsentError(f"{kernel.image.path}: no symbol prb, log_first_idx or log_buf: no log")
    return generation.lines(kernel)
