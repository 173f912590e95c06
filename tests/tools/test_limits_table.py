"""tools/limits_table.py refuses limits that the table cannot show."""

from pathlib import Path

import pytest

from tools import limits_table


@pytest.mark.parametrize("path", limits_table.SOURCES, ids=lambda path: path.name)
def test_limits_of_the_sources(path: Path) -> None:
    names = [limit.name for limit in limits_table.limits(path)]
    assert names
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "#: Of files.\nMAX_FILES = 2\n\n#: Of others.\nMAX_FILES = 1 << 4\n",
            "there are two limits MAX_FILES",
        ),
        ("MAX_FILES = 2\n", "MAX_FILES has no comment"),
    ],
)
def test_refused(tmp_path: Path, text: str, problem: str) -> None:
    source = tmp_path / "limits.py"
    source.write_text(text)
    with pytest.raises(SystemExit, match=problem):
        list(limits_table.limits(source))
