"""A domain as a program of drgn, with its helpers, its prompt and its crash-compatible commands.

Importing this package imports drgn; ``MissingPackageError`` says what to install if that fails.
"""

from .. import MissingPackageError

try:
    import drgn as _drgn  # noqa: F401 - for the error if it is missing
except ModuleNotFoundError as _error:
    if _error.name not in ("drgn", "_drgn"):
        raise
    raise MissingPackageError("drgn", "drgn") from None

from .hypervisor import program_of_xen
from .program import program_of

__all__ = ["program_of", "program_of_xen"]
