"""Signatures of published logs: facts about many versions of Linux and Xen."""

from pathlib import Path

import pytest

from xenkdump_fast import signature


def excerpts() -> dict[str, tuple[str, str]]:
    """The expected normal form and the text of each excerpt, by name."""
    found = {}
    for part in (Path(__file__).parent / "logs.txt").read_text().split("\n== ")[1:]:
        name, expected, text = part.split("\n", 2)
        found[name] = expected.removeprefix("expect: "), text
    return found


EXCERPTS = excerpts()


@pytest.mark.parametrize("name", EXCERPTS)
def test_signature(name: str) -> None:
    expected, text = EXCERPTS[name]
    found = signature.of_log(text)
    assert found is not None
    assert found.normal == expected


def test_different_faults_have_different_signatures() -> None:
    hashes: dict[str, list[str]] = {}
    for name, (_, text) in EXCERPTS.items():
        found = signature.of_log(text)
        assert found is not None
        hashes.setdefault(found.hash, []).append(name)
    assert [names for names in hashes.values() if len(names) > 1] == []
    assert len(hashes) > 40
