"""Many readers of one forged dump at once; ``tests.real.together`` does it to real ones."""

from pathlib import Path

import pytest

from xenkdump_forge import forge

from .real.together import ALONE, SHARED, together


@pytest.mark.parametrize("kind", ["modern", "2006-pae"])
def test_all_answers_are_the_lone_readers(kind: str, tmp_path: Path) -> None:
    sample = forge(tmp_path / "dump", kind)
    asked, wrong = together(str(sample.vmcore), str(sample.vmlinux), 1, processes=2)
    assert wrong == []
    # Each of sixteen threads and of two processes has asked everything.
    assert min(asked.values()) >= 18
    assert len(asked) == len(SHARED) + len(ALONE)
