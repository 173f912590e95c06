"""A session on a dump: opened once, queried many times."""

from .._typing import TYPE_CHECKING
from .dump import Dump, open
from .dump_file import DumpFile

if TYPE_CHECKING:
    from .domain import Domain, MismatchError
else:

    def __getattr__(name: str) -> object:
        """What only commands about one domain need, with all that reads its kernel (PEP 562)."""
        if name not in ("Domain", "MismatchError"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import domain

        return getattr(domain, name)


__all__ = [
    "Domain",
    "Dump",
    "DumpFile",
    "MismatchError",
    "open",
]
