"""Properties of ``write_dump`` for every kind."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xenkdump_forge import KINDS, SyntheticDump, SyntheticDumpError, WriteError, build, write_dump


def test_unknown_kind() -> None:
    with pytest.raises(SyntheticDumpError, match="unknown kind of dump 'windows'"):
        build("windows")


def test_too_little_memory() -> None:
    with pytest.raises(SyntheticDumpError, match="at least"):
        build("modern", memory=1 << 20)


def test_a_failed_write_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_text("mine")

    def fail(_: object) -> None:
        raise OSError(28, os.strerror(28))

    def make_writing_fail(parts: object) -> None:
        parts.core.write = fail  # type: ignore[attr-defined]

    with pytest.raises(SyntheticDumpError, match="No space left"):
        write_dump(tmp_path, "modern", extra=make_writing_fail)
    assert [p.name for p in tmp_path.iterdir()] == ["vmlinux"]
    assert (tmp_path / "vmlinux").read_text() == "mine"


def test_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SyntheticDumpError, match="cannot write"):
        write_dump(tmp_path / "file", "modern")


@pytest.mark.parametrize("kind", KINDS)
def test_file_is_sparse(kind: str, dump_of: Callable[[str], SyntheticDump]) -> None:
    stat = dump_of(kind).vmcore.stat()
    assert stat.st_blocks * 512 < 40 << 20
    assert stat.st_size < 4 << 30


@pytest.mark.parametrize("kind", KINDS)
def test_about_ninety_tasks_and_two_cpus(
    kind: str, dump_of: Callable[[str], SyntheticDump]
) -> None:
    dom0 = dump_of(kind).plan["domains"][0]
    assert dom0["header"]["cpus"] == 2
    assert 85 <= len(dom0["tasks"]) == dom0["header"]["tasks"]
    states = {task["state"] for task in dom0["tasks"]}
    assert states >= {"R", "S", "D", "T", "Z"}
    assert any(task["pid"] != task["tgid"] for task in dom0["tasks"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_has_notes_and_sources(kind: str, dump_of: Callable[[str], SyntheticDump]) -> None:
    plan = dump_of(kind).plan
    assert plan["notes"][0] | {"data": None} == {
        "name": "CORE",
        "type": "0x1",
        "size": 336 if plan["domains"][0]["word"] == 8 or kind == "32on64" else 144,
        "data": None,
    }
    has_tree = any(note["type"] == "0x1000001" for note in plan["notes"])
    for domain in plan["domains"][:1]:
        assert ("list" in domain["p2m_sources"]) == has_tree


@pytest.mark.parametrize("memory", [600 << 30, (512 << 30) + 1, 99999999 << 30])
def test_more_memory_than_the_format_holds(memory: int) -> None:
    with pytest.raises(SyntheticDumpError, match="a 64-bit guest ends at 512 GiB"):
        build("modern", memory=memory)
    with pytest.raises(SyntheticDumpError, match="at most 8 GiB"):
        build("2006-x86_64", memory=memory)


def test_the_largest_memory(tmp_path: Path) -> None:
    """Half a terabyte, as fast as the part of it that has frames."""
    seen: list[tuple[int, int]] = []
    dump = write_dump(
        tmp_path, "modern", memory=512 << 30, progress=lambda *numbers: seen.append(numbers)
    )
    assert dump.vmcore.stat().st_blocks * 512 < 64 << 20
    assert seen == [(i, len(seen)) for i in range(len(seen))]
    (dom0, _) = dump.plan["domains"]
    assert dom0["max_pfn"] == 512 << 18
    p2m = dom0["p2m"]
    last = {"pfn": hex((512 << 18) - 1), "kind": "invalid", "mfn": None}
    assert p2m["samples"][-1] == last
    kinds = ("frame", "invalid", "foreign", "identity")
    assert sum(p2m["counts"][kind] for kind in kinds) == 512 << 18


def test_failures_to_write_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="Not a directory"):
        write_dump(tmp_path / "file" / "below", "modern")
