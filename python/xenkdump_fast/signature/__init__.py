"""Signatures: the same for the same fault, whatever the machine and the build (docs/signature.md).

::

    from xenkdump_fast import signature
    death = signature.of(dump)              # of a dump
    found = signature.of_kernel(kernel)     # of one kernel in it
    found = signature.of_log(text)          # of a log, a kernel's or Xen's
"""

from . import normal_form
from .host import Death, of
from .kernel_stack import of_kernel
from .log_text import fault
from .normal_form import VERSION, Signature


def of_log(text: str) -> Signature | None:
    """The signature of the last fault in a log; None if there is none."""
    found = fault(text)
    return None if found is None else found.signature()


__all__ = ["VERSION", "Death", "Signature", "normal_form", "of", "of_kernel", "of_log"]
