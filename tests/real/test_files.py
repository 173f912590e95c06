"""``files`` and ``cmdline PID`` against drgn and against the memory of processes."""

from collections.abc import Callable
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import cmdline, files
from xenkdump_fast.linux.files import open_files

from .. import paths_by_walk, rendering

pytestmark = pytest.mark.real

DOMAINS = [
    ("xen417-three-domains", 0),
    ("xen417-three-domains", 1),
    ("xen420-pv-pvh", 0),
    ("xen420-pv-pvh", 2),
    ("bare-x86_64", 0),
    ("linux73-bare", 0),
]


@pytest.mark.parametrize(("name", "number"), DOMAINS)
def test_every_file_of_every_task(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    pytest.importorskip("drgn", reason="drgn is not installed")
    from drgn import Object
    from drgn.helpers.linux.fs import d_path, for_each_file

    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)
    kernel = domain.kernel
    program = xk.drgn_program(domain)
    tasks = kernel.tasks()
    found = open_files(kernel, tasks)
    count = 0
    for task in tasks:
        if task.idle or task.exit_state:
            continue
        files_struct = kernel.read(task.address, "task_struct.files")
        if not files_struct:
            continue
        expected = {
            fd: (file.value_(), file.f_inode.value_(), d_path(file.f_path).decode())
            for fd, file in for_each_file(Object(program, "struct task_struct *", task.address))
            if file
        }
        actual = {
            one.number: (one.address, one.inode, one.path) for one in found[task.address].files
        }
        assert actual.keys() == expected.keys()
        for fd, (address, inode, path) in expected.items():
            assert actual[fd][:2] == (address, inode)
            # drgn names these by the file system alone.
            if ":" not in actual[fd][2]:
                assert actual[fd][2] == path
        count += len(expected)
    assert count > 50


@pytest.mark.parametrize(("name", "number"), DOMAINS)
def test_paths_by_single_reads(
    name: str, number: int, dump_file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The native walk finds what a walk by single reads does."""
    kernel = xk.open(dump_file(f"{name}/vmcore")).domain(number).kernel
    compared = []

    class Compared:
        """The memory of the kernel, whose paths are compared."""

        def __init__(self, memory: Any) -> None:
            self._memory = memory

        def __getattr__(self, member: str) -> Any:
            return getattr(self._memory, member)

        def paths(
            self, nodes: Any, trees: Any, word: int, node: Any, tree: Any, limits: Any
        ) -> Any:
            found = self._memory.paths(nodes, trees, word, node, tree, limits)
            expected = paths_by_walk.paths(self._memory, nodes, trees, word, node, tree, limits[0])
            assert found[0] == [text for text, _ in expected]
            assert found[1] == [lost for _, lost in expected if lost]
            compared.extend(found[0])
            return found

    tasks = kernel.tasks()
    monkeypatch.setattr(kernel, "virtual", Compared(kernel.virtual))
    assert open_files(kernel, tasks)
    assert len(compared) > 100
    assert any(text.count("/") > 1 for text in compared)


def test_the_text(dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file("xen417-three-domains/vmcore")).domain(0)
    whole: Any = rendering.json(files.run(domain, files.Options(all=True)))
    paths = {one["path"] for task in whole["tasks"] for one in task["files"]}
    assert {"/dev/console", "/dev/null"} <= paths
    assert any(path.startswith("pipe:[") for path in paths)
    matching: Any = rendering.json(files.run(domain, files.Options(all=True, match="pipe:[")))
    assert {one["path"] for task in matching["tasks"] for one in task["files"]} == {
        path for path in paths if path.startswith("pipe:[")
    }


@pytest.mark.parametrize(("name", "number"), DOMAINS)
def test_command_lines(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    pytest.importorskip("drgn", reason="drgn is not installed")
    from drgn import Object
    from drgn.helpers.linux.mm import cmdline as arguments

    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)
    program = xk.drgn_program(domain)
    found: Any = cmdline.run(domain, cmdline.Options(all=True))
    assert len(found.processes) > 20
    for task, shown in found.processes:
        expected = arguments(Object(program, "struct task_struct *", task.address))
        assert expected is not None
        assert list(shown) == [text.decode() for text in expected]
