"""A session on a dump: opened once, queried many times."""

from .bare import AlteredWord, BareMachine, CpuState
from .domain import Domain, MismatchError
from .dump import Dump, open
from .dump_file import DumpFile

__all__ = [
    "AlteredWord",
    "BareMachine",
    "CpuState",
    "Domain",
    "Dump",
    "DumpFile",
    "MismatchError",
    "open",
]
