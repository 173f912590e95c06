"""A session on a dump: opened once, queried many times."""

from .domain import Domain, MismatchError
from .dump import Dump, open
from .dump_file import DumpFile

__all__ = [
    "Domain",
    "Dump",
    "DumpFile",
    "MismatchError",
    "open",
]
