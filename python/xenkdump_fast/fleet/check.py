"""What may be in a row. The table's files and what a worker sends are checked by this module.

A row that passed can be written as JSON and to the Parquet file, and read back.
"""

import math
import re
from collections.abc import Callable
from typing import Any, cast

from ..limits import MAX_TRIAGE_TEXT, MAX_TRIAGE_WARNINGS
from . import row
from .row import Row

#: The years 1 to 9999, in seconds since 1970: what Python's datetime has.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
_SIGNATURE = re.compile(r"[0-9a-f]{8}")
_WHOLE = ("size", "time", "uptime", "copied")
_REAL = ("modified", "duration")
_DATES = ("modified", "time")


def plain(text: str) -> str:
    r"""Text that is valid as UTF-8. A byte of a file name that is not is escaped: ``\xff``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # another lone surrogate: of JSON, not of a file name
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def whole(value: int | None) -> int | None:
    """An integer, if the column can have it."""
    return value if value is not None and -(1 << 63) <= value < 1 << 63 else None


def date(value: float | None) -> float | None:
    """Seconds since 1970, if they are a date of the years 1 to 9999."""
    return value if value is not None and FIRST_SECOND <= value <= LAST_SECOND else None


def is_signature(value: str | None) -> bool:
    """Whether this is the hash of a signature."""
    return value is not None and _SIGNATURE.fullmatch(value) is not None


def checked(value: object) -> Row:
    """The row with valid text, and None for numbers that a column cannot have.

    ValueError if this is no row.
    """
    if not isinstance(value, dict) or value.keys() != Row.__annotations__.keys():
        raise ValueError("not the columns of a row")
    found: dict[str, Any] = {}
    lost: list[str] = []
    for name, one in value.items():
        found[name], is_valid = _column(name, one)
        if not is_valid:
            lost.append(f"{name} is not known: {str(one)[:32]} is out of range")
    if found["status"] not in (row.OK, row.NO_FAULT, row.FAILED):
        raise ValueError("the status is invalid")
    if found["signature"] is not None and not is_signature(found["signature"]):
        raise ValueError("the signature is invalid")
    # Those of the row are limited where they are made; a file may have others.
    found["missing"] = [*lost, *found["missing"][: MAX_TRIAGE_WARNINGS + len(_WHOLE + _REAL)]]
    return cast(Row, found)


def _column(name: str, value: object) -> tuple[object, bool]:
    """The value of a column, and whether it could be kept; ValueError for the wrong type."""
    if name == "missing":
        if not isinstance(value, list):
            raise ValueError(f"{name} is not a list")
        return [plain(_text(name, one))[:MAX_TRIAGE_TEXT] for one in value], True
    if name in ("path", "status"):
        return plain(_text(name, value)), True
    if name in ("duration", "copied"):
        kept = _number(name, value)
        return (0 if kept is None else kept), kept is not None
    if value is None:
        return None, True
    if name in _WHOLE + _REAL:
        kept = _number(name, value)
        return kept, kept is not None
    return plain(_text(name, value)), True


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value


def _number(name: str, value: object) -> float | None:
    kinds: tuple[type, ...] = (int,) if name in _WHOLE else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{name} is not a number")
    limit: Callable[[Any], Any] = date if name in _DATES else whole
    kept = limit(value)
    if kept is None or not math.isfinite(kept):
        return None
    return kept if name in _WHOLE else float(kept)
