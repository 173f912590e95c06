"""What ``forge`` promises whatever the kind."""

import os
from pathlib import Path

import pytest

from xenkdump_fast.sample import KINDS, SampleError, build, forge


def test_unknown_kind() -> None:
    with pytest.raises(SampleError, match="no kind of sample is called 'windows'"):
        build("windows")


def test_too_little_memory() -> None:
    with pytest.raises(SampleError, match="at least"):
        build("modern", memory=1 << 20)


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_text("mine")

    def fail(_: object) -> None:
        raise OSError(28, os.strerror(28))

    def break_core(parts: object) -> None:
        parts.core.write = fail  # type: ignore[attr-defined]

    with pytest.raises(SampleError, match="No space left"):
        forge(tmp_path, "modern", extra=break_core)
    assert [p.name for p in tmp_path.iterdir()] == ["vmlinux"]
    assert (tmp_path / "vmlinux").read_text() == "mine"


def test_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SampleError, match="cannot write"):
        forge(tmp_path / "file", "modern")


@pytest.mark.parametrize("kind", KINDS)
def test_file_is_sparse(kind: str, tmp_path: Path) -> None:
    written = forge(tmp_path, kind)
    stat = written.vmcore.stat()
    assert stat.st_blocks * 512 < 40 << 20
    assert stat.st_size < 4 << 30
