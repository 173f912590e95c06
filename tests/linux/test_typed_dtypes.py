"""numpy dtypes with members of a kernel's structs."""

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast.linux.typed import dtypes
from xenkdump_fast.session import Domain
from xenkdump_forge import write_dump

from .test_typed_hostile import files  # noqa: F401  its types


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    made = write_dump(tmp_path_factory.mktemp("dtypes") / "dump", like="modern")
    return xk.open(made.vmcore).domain(0, made.vmlinux)


def test_every_task_by_its_type(domain: Domain) -> None:
    kernel = domain.kernel
    dtype = kernel.struct_dtype("task_struct", "pid", "comm", "mm", "tasks", "tasks.next")
    assert dtype.itemsize == kernel.types.sizeof("task_struct")
    assert dtype["pid"] == np.dtype("<i4")
    assert dtype["mm"] == np.dtype("<u8")
    assert dtype["comm"].kind == "S"
    assert dtype["tasks"] == np.dtype("V16")
    tasks = kernel.tasks()
    found = domain.virtual.read_struct_many([task.address for task in tasks], dtype)
    assert found["pid"].tolist() == [task.pid for task in tasks]
    assert [name.decode() for name in found["comm"].tolist()] == [task.comm for task in tasks]
    mms = [kernel.read(task.address, "task_struct.mm") for task in tasks]
    assert found["mm"].tolist() == mms
    assert [one.tobytes()[:8] for one in found["tasks"]] == [
        int(at).to_bytes(8, "little") for at in found["tasks.next"]
    ]
    # The dtype has the size of the struct: it describes arrays of them, too.
    dtype = kernel.struct_dtype("task_struct", "pid", "comm")
    one = domain.virtual.read_array(tasks[0].address, dtype, 1)
    assert one["pid"].tolist() == [tasks[0].pid]


@pytest.mark.parametrize(
    ("struct", "member", "problem"),
    [
        ("task_struct", "no_such_member", "no member"),
        ("no_such_struct", "a", "no_such_struct"),
        ("hostile_bits", "wide", "bit-field"),
        ("hostile_text", "text", "numpy has no such dtype"),
        ("hostile_damaged", "loop", "typedef"),
        ("hostile_elements3", "a", "numpy has no such dtype|larger than the address space"),
    ],
)
def test_what_has_no_dtype(
    struct: str,
    member: str,
    problem: str,
    files: tuple[str, str],  # noqa: F811
) -> None:
    kernel = xk.open(files[1]).domain(0, files[0]).kernel
    with pytest.raises(xk.AbsentError, match=problem):
        kernel.struct_dtype(struct, member)


def test_a_member_is_needed(domain: Domain) -> None:
    with pytest.raises(ValueError, match="a member is needed"):
        dtypes.of(domain.kernel, "task_struct", ())
