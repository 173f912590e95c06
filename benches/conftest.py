"""The forged guests, opened; they lie where XKDUMP_BENCH says (``benches/run.py`` sees to it)."""

from collections.abc import Callable

import pytest

from . import guests
from .guests import Guest


@pytest.fixture(scope="session")
def open_guest() -> Callable[[str], Guest]:
    """``open_guest("64g")``."""
    return guests.open_guest
