"""The kernel's log, in each format of printk.

=============  =========================================================================
2.6 to 3.4     a ring of bytes (``bytes_ring``)
3.5 to 5.9     a ring of records: struct log, printk_log since 3.11 (``record_ring``)
5.10 on        the lockless ring of descriptors and text blocks (``lockless_ring``)
=============  =========================================================================
"""

from ..kernel import Kernel
from .message import Lines


def lines(kernel: Kernel) -> Lines:
    """Every message in the kernel's log, the oldest first; AbsentError if it has no log.

    A damaged log yields what can be read of it. Warnings about the damage are in
    ``kernel.warnings`` after the iteration.
    """
    if "prb" in kernel.symbols:
        from . import lockless_ring as log_format
    elif "log_first_idx" in kernel.symbols and "log_next_idx" in kernel.symbols:
        from . import record_ring as log_format  # type: ignore[no-redef]
    elif "log_buf" in kernel.symbols:
        from . import bytes_ring as log_format  # type: ignore[no-redef]
    else:
        raise kernel.missing("prb", "log_first_idx", "log_buf")
    return log_format.lines(kernel)
