"""Opens the synthetic guests in the folder XKDUMP_BENCH, which ``benches/run.py`` sets."""

from collections.abc import Callable

import pytest

from . import guests
from .guests import Guest


@pytest.fixture(scope="session")
def open_guest() -> Callable[[str], Guest]:
    """``open_guest("64g")``."""
    return guests.open_guest
