"""Kernels whose vmlinux has symbols alone: no types, no unwind tables."""

from dataclasses import replace
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import bt
from xenkdump_fast.linux import modules
from xenkdump_forge import KINDS, write_dump, writing
from xenkdump_forge.hosts import i386_2006
from xenkdump_forge.parts import Parts

#: The number of tasks whose frames are exactly those of the plan, and of all tasks. The 2006 and
#: shadow kinds lack the registers of running vCPUs.
EXACT = {
    "2006": (93, 94),
    "2006-pae": (94, 94),
    "2006-x86_64": (92, 94),
    "shadow": (92, 94),
    "xen3": (94, 94),
    "32on64": (89, 89),
    "modern": (89, 89),
    "modern-hypercall-page": (89, 89),
}


def strip(parts: Parts) -> None:
    """Removes types and unwind tables from the vmlinux."""
    image = parts.kernels[0].image
    image.spec = replace(image.spec, dwarf=0, debug_frame=False, has_btf=False)
    image.extra = [section for section in image.extra if section.name == ".notes"]
    parts.vmlinux = image.vmlinux()


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_and_modules(kind: str, tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path, like=kind, extra=strip)
    domain = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))
    plan = synthetic.plan["domains"][0]
    planned = {int(task["task"], 16): task for task in plan["tasks"]}
    traces = bt.run(domain, bt.Options(all=True)).traces
    assert {trace.task.address for trace in traces} == set(planned)
    exact = 0
    for trace in traces:
        found = [(frame.pc, frame.sp, frame.module) for frame in trace.frames if not frame.user]
        exact += found == [
            (int(frame["pc"], 16), int(frame["sp"], 16), frame["module"])
            for frame in planned[trace.task.address]["frames"]
            if not frame.get("user")
        ]
    assert (exact, len(traces)) == EXACT[kind]
    assert [(m.name, hex(m.base), m.total, m.symbols) for m in modules.modules(domain.kernel)] == [
        (m["name"], m["base"], m["size"], True) for m in plan["modules"]
    ]
    inferred = [text for text in domain.kernel.warnings if "missing" in text]
    assert inferred == []


@pytest.mark.parametrize("unwind", [None, ["scan"]])
@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("frame_pointer", [False, True])
def test_an_oops_in_a_module_s_timer(
    frame_pointer: bool,
    stripped: bool,
    unwind: list[str] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = replace(i386_2006.LAYOUT, frame_pointer=frame_pointer)
    monkeypatch.setattr(i386_2006, "LAYOUT", layout)
    monkeypatch.setitem(writing._BUILDERS, "xen3", ("i386_2006.oops", 512 << 20))
    synthetic = write_dump(tmp_path, like="xen3", extra=strip if stripped else None)
    domain = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux), unwind=unwind)
    planned = synthetic.plan["domains"][0]["tasks"][0]["frames"]
    names = [frame["symbol"] for frame in planned]
    assert names[4:7] == ["error_code", "mirror_timeout", "run_timer_softirq"]
    (trace,) = (t for t in bt.run(domain, bt.Options(active=True)).traces if t.task.pid == 0)
    assert trace.stopped is None
    assert [(f.pc, f.sp, f.symbol, f.module) for f in trace.frames] == [
        (int(f["pc"], 16), int(f["sp"], 16), f["symbol"], f["module"]) for f in planned
    ]


def test_a_thread_list_that_is_not_known_is_reported(tmp_path: Path) -> None:
    """There is no table of pids to compare with, but a count of tasks."""

    def damage(parts: Parts) -> None:
        strip(parts)
        kernel = parts.kernels[0]
        for task in kernel.tasks:
            if task.job.comm == "xend":
                kernel.guest.write(task.view.at("thread_group"), bytes(8))

    synthetic = write_dump(tmp_path, like="xen3", extra=damage)
    kernel = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel
    planned = synthetic.plan["domains"][0]["tasks"]
    assert len(kernel.tasks()) == len(planned) - 6
    counted = len(planned) - 2  # without the idle tasks
    assert (
        f"tasks are missing: the kernel counts {counted} of them, {counted - 6} were found"
        in kernel.warnings
    )
