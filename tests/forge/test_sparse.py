"""Dumps of hosts with terabytes."""

from pathlib import Path

import pytest

from xenkdump_forge import SyntheticDumpError, write_sparse_dump

from .walk import Core


def test_a_terabyte(tmp_path: Path) -> None:
    dump = write_sparse_dump(tmp_path / "vmcore", populated=256 << 20)
    stat = dump.path.stat()
    assert stat.st_size > 1 << 39
    assert stat.st_blocks * 512 < 32 << 20
    core = Core(dump.path)
    assert len(core.loads) == dump.segments == 8000
    for run in list(dump.runs)[::16]:
        pfn = run * 512 + 77
        assert core.tree_entry(dump.frame_list_list, 8, pfn) == dump.mfn(pfn)
        assert core.tree_entry(dump.frame_list_list, 8, pfn + 512) == 2**64 - 1
        virtual = dump.page_offset + pfn * 4096
        assert core.walk("x86_64", dump.root, virtual) >> 12 == dump.mfn(pfn)
    assert dump.mfn(513) is None
    core.close()


def test_frames_are_allocated_once(tmp_path: Path) -> None:
    dump = write_sparse_dump(tmp_path / "vmcore", 64 << 30, 100, 32 << 30, populated=2 << 30)
    assert len(set(dump.runs.values())) == len(dump.runs) == 1024


def test_impossible_sizes(tmp_path: Path) -> None:
    with pytest.raises(SyntheticDumpError, match="512 GiB"):
        write_sparse_dump(tmp_path / "a", guest=1 << 40)
    with pytest.raises(SyntheticDumpError, match="too few"):
        write_sparse_dump(tmp_path / "b", memory=1 << 30, segments=8000)
    assert list(tmp_path.iterdir()) == []
