"""Counts the calls from Python into Rust."""

import sys
from types import FrameType
from typing import Any

import pytest

from xenkdump_fast import _native, cli


def crossings(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The number of calls into the extension module that a command makes, and its output.

    Calls of methods are counted. Attributes and operators are not: Python reports no call for them.
    """
    count = 0

    def profile(frame: FrameType, event: str, called: Any) -> None:
        nonlocal count
        if event != "c_call":
            return
        owner = getattr(called, "__self__", None)
        kind = owner if isinstance(owner, type) else type(owner)
        count += owner is _native or kind.__module__ == _native.__name__

    sys.setprofile(profile)
    try:
        status = cli.main(argv)
    finally:
        sys.setprofile(None)
    out = capsys.readouterr().out
    assert status == 0
    return count, out
