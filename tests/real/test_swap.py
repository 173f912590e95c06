"""``swap`` against drgn and crash."""

from collections.abc import Callable

import pytest

from xenkdump_fast.commands import swap

from .reference_lines import by_crash, by_drgn, every_crash, every_domain, fields, opened

pytestmark = pytest.mark.real


def lines(found: swap.Swaps) -> list[list[str]]:
    """The fields of the text."""
    return fields(list(found.text()))


@every_domain
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    assert lines(swap.run(domain)) == by_drgn(domain, "swap")
    assert domain.warnings == []


@every_crash
def test_as_crash(
    name: str, dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = by_crash(dump_file, tmp_path_factory.getbasetemp(), name)
    assert lines(swap.run(opened(dump_file, name, 0))) == expected["swap"]
