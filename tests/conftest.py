"""Fixtures that apply to every test."""

import pytest

from xenkdump_fast import isolation


@pytest.fixture(autouse=True)
def programming_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises exceptions that users would see as a warning about one task."""
    monkeypatch.setattr(isolation, "strict", True)
