"""Each fault changes the described data, and nothing else."""

import struct
from pathlib import Path

import pytest

from xenkdump_forge import build, faults
from xenkdump_forge.parts import Parts

from .walk import Core


@pytest.fixture
def parts() -> Parts:
    return build("2006-pae", memory=96 << 20)


def written(parts: Parts, tmp_path: Path) -> Core:
    path = tmp_path / "vmcore"
    parts.core.write(path)
    return Core(path)


def test_drop_notes(parts: Parts, tmp_path: Path) -> None:
    faults.drop_notes(parts, "CORE")
    core = written(parts, tmp_path)
    assert {name for name, _, _ in core.notes} == {"Xen Domanin-0 CR3"}
    core.close()


def test_per_cpu_notes(parts: Parts, tmp_path: Path) -> None:
    faults.per_cpu_notes(parts)
    before = [note for group in parts.core.notes for note in group]
    core = written(parts, tmp_path)
    assert len(parts.core.notes) == 2
    assert [name for name, _, _ in core.notes] == [note.name for note in before]
    core.close()


def test_truncate(parts: Parts, tmp_path: Path) -> None:
    faults.truncate(parts, 123_457)
    written(parts, tmp_path).close()
    assert (tmp_path / "vmcore").stat().st_size == 123_457


def test_hole(parts: Parts, tmp_path: Path) -> None:
    faults.hole(parts, 0x8000000, 0x8001000)
    core = written(parts, tmp_path)
    core.machine_read(0x7FFFFF0, 16)
    with pytest.raises(KeyError):
        core.machine_read(0x8000000, 1)
    core.machine_read(0x8001000, 16)
    core.close()


def test_exclude(parts: Parts, tmp_path: Path) -> None:
    faults.exclude(parts, 0x8000000)
    core = written(parts, tmp_path)
    core.machine_read(0x7FFFFF0, 16)
    with pytest.raises(KeyError):
        core.machine_read(0x8000000, 1)
    short = [s for s in parts.core.segments if s.filesz != s.memsz]
    assert short
    core.close()


def test_shuffled_and_overlapping_segments_have_the_same_content(
    parts: Parts, tmp_path: Path
) -> None:
    faults.many_segments(parts, 1 << 20)
    faults.overlap_segments(parts)
    faults.shuffle_segments(parts)
    core = written(parts, tmp_path)
    assert core.loads != sorted(core.loads)
    dom0 = parts.plan["domains"][0]
    banner, root = int(dom0["symbols"]["linux_banner"], 16), int(dom0["root"], 16)
    assert core.read("x86-pae", root, banner, 14) == b"Linux version "
    core.close()


def test_many_segments_are_counted_by_section_0(parts: Parts, tmp_path: Path) -> None:
    faults.many_segments(parts)
    path = tmp_path / "vmcore"
    parts.core.write(path)
    with path.open("rb") as file:
        head = file.read(52)
        shoff, phnum = struct.unpack_from("<I", head, 32)[0], struct.unpack_from("<H", head, 44)[0]
        assert phnum == 0xFFFF
        file.seek(shoff)
        section = struct.unpack("<10I", file.read(40))
    assert section[7] == len(parts.core.segments) > 65535


def test_touched_only_is_small(parts: Parts, tmp_path: Path) -> None:
    faults.touched_only(parts)
    core = written(parts, tmp_path)
    assert (tmp_path / "vmcore").stat().st_size < 8 << 20
    dom0 = parts.plan["domains"][0]
    banner, root = int(dom0["symbols"]["linux_banner"], 16), int(dom0["root"], 16)
    assert core.read("x86-pae", root, banner, 14) == b"Linux version "
    core.close()


def test_drop_untouched_keeps_what_was_written(parts: Parts, tmp_path: Path) -> None:
    faults.hole(parts, 0x8000000, 0x8001000)
    faults.drop_untouched(parts)
    core = written(parts, tmp_path)
    assert (tmp_path / "vmcore").stat().st_size < 100 << 20
    assert len(core.loads) > 4
    for mfn, frame in parts.core.memory.frames.items():
        if any(a <= mfn * 4096 < b for a, b in [(0x8000000, 0x8001000), (32 << 20, 96 << 20)]):
            continue
        assert core.machine_read(mfn * 4096, 4096) == bytes(frame)
    with pytest.raises(KeyError):
        core.machine_read(0x8000000, 1)
    core.close()


@pytest.mark.parametrize("fault", [faults.loop_task_list, faults.break_task_list])
def test_the_task_list_does_not_return_to_its_head(
    fault: object, parts: Parts, tmp_path: Path
) -> None:
    assert callable(fault)
    fault(parts)
    core = written(parts, tmp_path)
    dom0 = parts.plan["domains"][0]
    root, at = int(dom0["root"], 16), parts.kernels[0].idle[0].view.at("tasks")
    head = at
    for _ in range(200):
        try:
            at = int.from_bytes(core.read("x86-pae", root, at, 4), "little")
        except KeyError:
            break
        assert at != head
    core.close()
