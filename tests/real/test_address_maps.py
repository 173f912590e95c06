"""``vm`` against drgn: every area of every process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import vm

from .. import rendering
from .reference_lines import by_crash, by_drgn, every_kernel_of_crash, fields

pytestmark = pytest.mark.real


# drgn needs a minute for some: one domain of each kernel.
@pytest.mark.parametrize(
    ("name", "number"), [("xen417-three-domains", 1), ("xen420-pv-pvh", 2), ("linux73-bare", 0)]
)
def test_every_area(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)
    whole: Any = vm.run(domain, vm.Options(all=True))
    count = 0
    for process in whole.processes:
        if process.map is None:
            continue
        shown = fields(whole._replace(processes=[process]).text())
        expected = by_drgn(domain, f"vm {process.task.pid}")
        # drgn leaves out the counters of CPUs that panic() has stopped (6.2 on).
        assert int(shown[2][2][:-1]) >= int(expected[2][2][:-1])
        shown[2][2] = expected[2][2]
        assert shown == expected
        count += len(process.map.areas)
    assert count > 50
    assert not domain.warnings


@every_kernel_of_crash
def test_as_crash(name: str, dump_file: Callable[[str], str], tmp_path: Path) -> None:
    vmcore = dump_file(f"{name}/vmcore")
    domain = xk.open(vmcore).domain(0)
    every: Any = vm.run(domain, vm.Options(all=True))
    processes = [one for one in every.processes if one.map is not None]
    asked = {f"vm {one.task.pid}": one for one in processes}
    expected = by_crash(dump_file, tmp_path, name, list(asked))
    assert expected
    assert expected.keys() == asked.keys()
    for command, one in asked.items():
        shown = fields(every._replace(processes=[one]).text())
        # crash has no names of areas without a file.
        shown = [row[:4] if row[-1].startswith("[") else row for row in shown]
        assert shown == expected[command]


def test_json_and_selection(dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file("bare-x86_64/vmcore")).domain(0)
    found: Any = rendering.json(vm.run(domain, vm.Options(("1", "2"), match="[")))
    assert [one["pid"] for one in found["tasks"]] == [1]  # a kernel thread has no areas
    names = [area["name"] for area in found["tasks"][0]["map"]["areas"]]
    assert names == ["[heap]", "[stack]", "[vvar]", "[vdso]"]
    found = rendering.json(vm.run(domain, vm.Options(("1",), mm=True)))
    struct = found["tasks"][0]["map"]["mm_struct"]
    assert struct["total_vm"] == 2260 // 4
    thread = "\n".join(vm.run(domain, vm.Options(("2",))).text())
    assert "TOTAL_VM" in thread
    assert "VMA" not in thread
