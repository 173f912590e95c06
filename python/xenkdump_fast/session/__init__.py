"""A session on a dump: opened once, queried many times."""

from .domain import Domain, MismatchError
from .dump import Dump, open

__all__ = ["Domain", "Dump", "MismatchError", "open"]
