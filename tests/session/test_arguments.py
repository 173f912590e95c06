"""Arguments of the Python API that have another type."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xenkdump_fast as xk
import xenkdump_forge

#: Values that are no path, no name, no number and no task.
OTHERS = (None, 1.5, object(), b"x")


@pytest.fixture(scope="module")
def vmcore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return xenkdump_forge.write_dump(tmp_path_factory.mktemp("arguments"), "modern").vmcore


@pytest.fixture(scope="module")
def domain(vmcore: Path) -> xk.Domain:
    return xk.open(vmcore).domain(0, vmcore.parent / "vmlinux")


@pytest.mark.parametrize("given", [*OTHERS, 123, True, [None], ["vmcore", 2], [b"x"]])
def test_paths_of_dumps(given: Any) -> None:
    with pytest.raises(TypeError, match=r"path: a path is needed \(a str or an os\.Path"):
        xk.open(given)


def test_no_dump() -> None:
    with pytest.raises(ValueError, match="at least one file"):
        xk.open([])
    with pytest.raises(FileNotFoundError):
        xk.open("")


@pytest.mark.parametrize("given", [*OTHERS[1:], 123, ["x"]])
def test_other_paths(given: Any, vmcore: Path) -> None:
    dump = xk.open(vmcore)
    calls: dict[str, Callable[[], object]] = {
        "cache_dir": lambda: xk.open(vmcore, cache_dir=given),
        "vmlinux": lambda: dump.domain(0, given),
        "vmcoreinfo": lambda: dump.domain(0, vmcoreinfo=given),
        "xen_syms": lambda: dump.xen(given),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"{name}: a path is needed"):
            call()


@pytest.mark.parametrize("given", [*OTHERS[1:], "1", [1]])
def test_numbers(given: Any, vmcore: Path) -> None:
    dump = xk.open(vmcore)
    calls: dict[str, Callable[[], object]] = {
        "cache_size": lambda: xk.open(vmcore, cache_size=given),
        "kaslr_offset": lambda: dump.domain(0, kaslr_offset=given),
        "phys_base": lambda: dump.domain(0, phys_base=given),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"{name}: an int is needed"):
            call()


def test_numbers_out_of_range(vmcore: Path) -> None:
    for size in (-1, 1 << 70):
        with pytest.raises(ValueError, match="is not a number of bytes"):
            xk.open(vmcore, cache_size=size)
    assert xk.open(vmcore, cache_size=np.int64(1 << 20)).domain(0).id == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["orc", b"orc", 1, [1], [None]])
def test_names_of_methods(given: Any, vmcore: Path) -> None:
    """A single name is no sequence of names."""
    with pytest.raises(TypeError, match="unwind: a sequence of str is needed"):
        xk.open(vmcore).domain(0, unwind=given)


@pytest.mark.parametrize("given", [1, b"list", ["list"]])
def test_the_source_of_a_p2m(given: Any, vmcore: Path) -> None:
    with pytest.raises(TypeError, match="p2m_source: a str is needed"):
        xk.open(vmcore).domain(0, p2m_source=given)


@pytest.mark.parametrize("given", [*OTHERS, 1, "systemd"])
def test_tasks(given: Any, domain: xk.Domain) -> None:
    for call in (domain.kernel.backtrace, domain.user):
        with pytest.raises(TypeError, match="task: a Task is needed, not"):
            call(given)


@pytest.mark.parametrize("given", [*OTHERS, 1])
def test_members(given: Any, domain: xk.Domain) -> None:
    kernel = domain.kernel
    with pytest.raises(TypeError, match="key: the name of a member is needed, not"):
        kernel.read(kernel.symbols["init_task"], given)
    with pytest.raises(TypeError, match="members: a sequence of str is needed, not"):
        kernel.struct_dtype("task_struct", given)
    with pytest.raises(TypeError, match="struct: a str is needed, not"):
        kernel.struct_dtype(given, "pid")
