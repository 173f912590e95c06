"""Counts the calls from Python into Rust."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from xenkdump_fast import _native, cli


def crossings(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The number of calls into the extension module that a command makes, and its output."""
    with counted() as calls:
        status = cli.main(argv)
    out = capsys.readouterr().out
    assert status == 0
    return calls.total(), out


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """The calls of each function of the extension module within, by name.

    Calls of methods are counted. Attributes and operators are not: Python reports no call for them.
    """
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call":
            return
        owner = getattr(called, "__self__", None)
        kind = owner if isinstance(owner, type) else type(owner)
        if owner is _native or kind.__module__ == _native.__name__:
            calls[called.__name__] += 1

    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)
