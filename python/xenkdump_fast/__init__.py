"""Reads Xen and Linux kernel crash dumps, any domain of them."""

from ._native import AbsentError, DumpError, MemoryFault
from .session import Domain, Dump, MismatchError, open

__all__ = [
    "AbsentError",
    "Domain",
    "Dump",
    "DumpError",
    "MemoryFault",
    "MismatchError",
    "open",
]
