"""What holds for every test."""

import pytest

from xenkdump_fast import isolation


@pytest.fixture(autouse=True)
def programming_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What users see as a warning about one task is a failure here."""
    monkeypatch.setattr(isolation, "strict", True)
