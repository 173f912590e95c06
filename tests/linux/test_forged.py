"""Every kind of forged dump, against the plan that it was written from."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast
from xenkdump_fast import Domain
from xenkdump_fast.commands import bt, log, ps
from xenkdump_fast.linux import header, pids, tasklist
from xenkdump_fast.render import bt as render_bt
from xenkdump_fast.sample import KINDS, Sample, forge

Forged = Callable[[str], tuple[Domain, dict[str, Any]]]
#: crash prefers what sysrq says to the panic that follows.
SYSRQ = {"32on64": "sysrq: SysRq : Trigger a crash"}
LETTERS = {"R": "RU", "S": "IN", "D": "UN", "Z": "ZO", "I": "ID", "T": "ST"}


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Forged:
    """``forged("2006")``: domain 0 of that kind, opened, and the plan of it."""

    @cache
    def make(kind: str) -> tuple[Domain, dict[str, Any]]:
        sample: Sample = forge(Path(tmp_path_factory.mktemp(kind)) / "dump", like=kind)
        domain = xenkdump_fast.open(str(sample.vmcore)).domain(0, str(sample.vmlinux))
        return domain, sample.plan["domains"][0]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_tasks(kind: str, forged: Forged) -> None:
    domain, plan = forged(kind)
    found = {
        process.task.address: (
            process.task.pid,
            process.task.tgid,
            process.task.comm,
            process.task.cpu,
            process.state,
            process.ppid,
            process.task.stack,
        )
        for process in ps.run(domain).processes
    }
    assert found == {
        int(task["task"], 16): (
            task["pid"],
            task["tgid"],
            task["comm"],
            task["cpu"],
            LETTERS[task["state"]],
            task["parent"],
            int(task["stack"], 16),
        )
        for task in plan["tasks"]
    }


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in ("2006", "2006-pae", "xen3")])
def test_the_table_of_pids(kind: str, forged: Forged) -> None:
    kernel = forged(kind)[0].kernel
    listed = set(tasklist.addresses(kernel)) - {kernel.symbol("init_task")}
    assert set(pids.tasks(kernel)) == listed


@pytest.mark.parametrize("kind", KINDS)
def test_log(kind: str, forged: Forged) -> None:
    domain, plan = forged(kind)
    found = log.run(domain).lines
    assert [(line.level, line.text) for line in found] == [
        (line["level"], line["text"]) for line in plan["log"]
    ]
    for line, planned in zip(found, plan["log"], strict=True):
        if line.time is not None:
            assert line.time == pytest.approx(planned["seconds"] * 1e9, abs=1000)


@pytest.mark.parametrize("kind", KINDS)
def test_header(kind: str, forged: Forged) -> None:
    domain, plan = forged(kind)
    found, planned = header.read(domain.kernel), plan["header"]
    assert (found.cpus, found.date, found.task_count, found.mhz) == tuple(
        planned[name] for name in ("cpus", "date", "tasks", "mhz")
    )
    assert found.panic == SYSRQ.get(kind, planned["panic"])
    assert found.uptime == int(planned["uptime"])
    assert found.memory == planned["memory_pages"] * 4096
    assert found.load is not None
    assert [value / 2048 for value in found.load] == pytest.approx(
        planned["load_average"], abs=0.01
    )
    for name in ("nodename", "release", "version"):
        assert found.uts[name] == planned[name]
    assert found.task is not None
    assert (found.task.pid, found.task.comm, hex(found.task.address), found.task.cpu) == tuple(
        planned[name] for name in ("pid", "command", "task", "cpu")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_backtraces_of_sleeping_tasks(kind: str, forged: Forged) -> None:
    domain, plan = forged(kind)
    planned = {int(task["task"], 16): task["frames"] for task in plan["tasks"]}
    traces = [trace for trace in bt.run(domain, everyone=True).traces if not trace.task.active]
    assert len(traces) == len(planned) - 2
    for trace in traces:
        assert [(frame.pc, frame.sp) for frame in trace.frames if not frame.user] == [
            (int(frame["pc"], 16), int(frame["sp"], 16))
            for frame in planned[trace.task.address]
            if not frame.get("user")
        ], trace.task.comm


@pytest.mark.parametrize("kind", ["2006", "shadow"])
def test_the_dying_task_is_found_by_its_stack(kind: str, forged: Forged) -> None:
    """Where no registers are in the dump, the last call into crash_kexec() is where to start."""
    domain, plan = forged(kind)
    (trace,) = bt.run(domain).traces
    assert trace.where == "its own stack"
    (planned,) = (task for task in plan["tasks"] if task["pid"] == trace.task.pid)
    assert [(frame.pc, frame.sp) for frame in trace.frames] == [
        (int(frame["pc"], 16), int(frame["sp"], 16)) for frame in planned["frames"][1:]
    ]


def test_the_message_of_2006(forged: Forged) -> None:
    """https://lists.xenproject.org, 16 June 2006: crash's first look at a Xen kdump."""
    domain, _ = forged("2006")
    assert render_bt.text(bt.run(domain, active=True)) == (
        'PID: 0        TASK: c02ce460  CPU: 0    COMMAND: "swapper"\n'
        " #0 [c030ff34] schedule at c028e648\n"
        " #1 [c030ffb0] cpu_idle at c0103e9f\n"
        "\n"
        'PID: 3949     TASK: f3e64030  CPU: 1    COMMAND: "do_kdump"\n'
        " #0 [f3dbbed8] crash_kexec at c0140c45\n"
        " #1 [f3dbbf28] __handle_sysrq at c01f54e4\n"
        " #2 [f3dbbf54] write_sysrq_trigger at c019cbff\n"
        " #3 [f3dbbf6c] vfs_write at c0168dbf\n"
        " #4 [f3dbbf90] sys_write at c0169736\n"
        " #5 [f3dbbfb8] system_call at c0105542\n"
        "    EAX: 00000004  EBX: 00000001  ECX: 080f8408  EDX: 00000002 \n"
        "    DS:  007b      ESI: 00000002  ES:  007b      EDI: b7f007c0\n"
        "    SS:  007b      ESP: bfb5ffc8  EBP: bfb5ffe4\n"
        "    CS:  0073      EIP: b7e93028  ERR: 00000004  EFLAGS: 00000246 \n"
    )
