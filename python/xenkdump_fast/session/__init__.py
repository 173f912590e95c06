"""A session on a dump: opened once, queried many times."""

from .._typing import TYPE_CHECKING
from ..mismatch import MismatchError
from .dump import Dump, open
from .dump_file import DumpFile

if TYPE_CHECKING:
    from .domain import Domain
else:

    def __getattr__(name: str) -> object:
        """What only commands about one domain need, with all that reads its kernel (PEP 562)."""
        if name != "Domain":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import domain

        return domain.Domain


__all__ = [
    "Domain",
    "Dump",
    "DumpFile",
    "MismatchError",
    "open",
]
