"""Address maps of damaged kernels."""

import re

import pytest

from tests.linux.fakes import FakeKernel, FakeMember, words
from xenkdump_fast import AbsentError
from xenkdump_fast.linux.address_maps import AddressMap, address_maps
from xenkdump_fast.linux.tasks import Task

TASK, MM, VMAS = 0xFFFF888000010000, 0xFFFF888000020000, 0xFFFF888000030000
FIELDS = ("vm_start", "vm_end", "vm_next", "vm_flags", "vm_file", "vm_ops", "vm_private_data")
LAYOUT: dict[str, int | FakeMember] = {
    "task_struct.mm": FakeMember(0, 8),
    "mm_struct.mmap": FakeMember(0, 8),
    "mm_struct.pgd": FakeMember(8, 8),
    "mm_struct.total_vm": FakeMember(16, 8),
    "vm_area_struct": 64,
    **{f"vm_area_struct.{name}": FakeMember(8 * i, 8) for i, name in enumerate(FIELDS)},
    "dentry": 64,
    "mount.mnt": FakeMember(0, 8),
    "mount.mnt_parent": FakeMember(0, 8),
    "mount.mnt_mountpoint": FakeMember(8, 8),
    "vfsmount.mnt_root": FakeMember(16, 8),
    "dentry.d_parent": FakeMember(0, 8),
    "dentry.d_inode": FakeMember(8, 8),
    "dentry.d_name.name": FakeMember(16, 8),
    "dentry.d_name.len": FakeMember(24, 4),
    "file.f_path.mnt": FakeMember(0, 8),
    "file.f_path.dentry": FakeMember(8, 8),
}
TASKS = [Task(TASK, 1, 1, "init", 0, 0, 0, 0, False, False)]


def kernel(following: dict[int, int], count: int = 4) -> FakeKernel:
    """A kernel with one process of ``count`` areas; ``following`` replaces some links."""
    made = FakeKernel({}, dict(LAYOUT))
    made.memory.write(TASK, words(8, MM))
    made.memory.write(MM, words(8, VMAS, 0x1000, 100))
    for i in range(count):
        link = VMAS + 64 * (i + 1) if i + 1 < count else 0
        row = words(8, 0x1000 * i, 0x1000 * (i + 1), following.get(i, link), 0x71, 0, 0, 0)
        made.memory.write(VMAS + 64 * i, row)
    return made


def found(made: FakeKernel) -> AddressMap:
    result = address_maps(made, TASKS, TASKS)[TASK]
    assert result is not None
    return result


def test_a_list() -> None:
    made = kernel({})
    read = found(made)
    assert (read.mm, read.pgd) == (MM, 0x1000)
    assert [(area.start, area.end) for area in read.areas] == [
        (0x1000 * i, 0x1000 * (i + 1)) for i in range(4)
    ]


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        (VMAS, "has the area 0xffff888000030000 twice"),
        (VMAS + 128, "has the area 0xffff8880000300\\w\\w twice"),
        (0xDEAD0000, "dead00"),
    ],
)
def test_a_broken_list(link: int, problem: str) -> None:
    made = kernel({2: link})
    assert 3 <= len(found(made).areas) <= 4
    assert any("are not complete" in text for text in made.warnings)
    assert any(re.search(problem, text) for text in made.warnings)


def test_more_areas_than_the_dump_can_hold() -> None:
    made = kernel({}, count=1000)
    made.memory_held = 64 * 100
    assert len(found(made).areas) == 100
    assert any("more than the dump can hold" in text for text in made.warnings)


def test_an_unknown_layout() -> None:
    made = kernel({})
    del made.types.layouts["mm_struct.mmap"]  # type: ignore[attr-defined]
    with pytest.raises(AbsentError, match="neither mm_mt nor mmap"):
        address_maps(made, TASKS, TASKS)


def test_a_task_without_user_space() -> None:
    made = kernel({})
    made.memory.write(TASK, words(8, 0))
    assert address_maps(made, TASKS, TASKS) == {TASK: None}


@pytest.mark.parametrize("missing", ["operations", "mapping", "name"])
def test_the_name_of_a_special_mapping_that_cannot_be_read(missing: str) -> None:
    """It is ``?``, with a warning. Without its operations the area is anonymous memory."""
    made = kernel({}, 1)
    special, operations, mapping, text = (0xFFFF888000040000 + 0x1000 * i for i in range(4))
    made.symbols.update(special_mapping_name=special)  # type: ignore[attr-defined]
    made.types.layouts.update(  # type: ignore[attr-defined]
        {
            "vm_operations_struct.name": FakeMember(0, 8),
            "vm_special_mapping.name": FakeMember(0, 8),
        }
    )
    made.memory.write(VMAS + 8 * FIELDS.index("vm_ops"), words(8, operations, mapping))
    made.memory.write(operations, words(8, special))
    made.memory.write(mapping, words(8, text))
    made.memory.write(text, b"[vdso]\0")
    assert [area.name for area in found(made).areas] == ["[vdso]"]
    assert not any("name of a memory area" in warning for warning in made.warnings)
    made.memory.drop({"operations": operations, "mapping": mapping, "name": text}[missing])
    assert [area.name for area in found(made).areas] == ["" if missing == "operations" else "?"]
    assert any("the name of a memory area is not known" in warning for warning in made.warnings)
