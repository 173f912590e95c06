"""tools/limits_table.py refuses limits that the table cannot show."""

from pathlib import Path

import pytest

from tools import limits_table


def test_limits_of_the_sources() -> None:
    every = list(limits_table.limits(*limits_table.SOURCES))
    for path in limits_table.SOURCES:
        some = list(limits_table.limits(path))
        assert some
        assert set(some) < set(every)


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


def test_one_name_in_two_files(tmp_path: Path) -> None:
    """The table would have two rows of this name."""
    paths = [tmp_path / "limits.rs", tmp_path / "limits.py"]
    paths[0].write_text("/// Of files.\npub const MAX_FILES: usize = 2;\n")
    paths[1].write_text("#: Of files.\nMAX_FILES = 2\n")
    with pytest.raises(SystemExit, match=r"limits\.py: there are two limits MAX_FILES"):
        list(limits_table.limits(*paths))
