"""Every kind of synthetic dump against its plan: header, tasks, frames, registers, P2M, log.

The plan comes from the model that the dump is written from. The generator shares no code with the
reader, so that both cannot have the same error.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_fast.commands import bt, check, log, notes, ps, sys
from xenkdump_fast.linux.backtrace import Trace
from xenkdump_fast.xen.p2m_sources import NAMES
from xenkdump_forge import KINDS, SyntheticDump, write_dump

Plan = dict[str, Any]
#: Kinds that hold a second domain, with the same kernel.
DOMAINS = [*((kind, 0) for kind in KINDS), ("modern", 1), ("modern-hypercall-page", 1)]
#: crash prints sysrq's message instead of the panic's.
SYSRQ = {"32on64": "sysrq: SysRq : Trigger a crash"}
SELECTORS = ("ds", "es", "fs", "gs")
#: task_struct.state as printed by ps.
STATES = {"R": "RU", "S": "IN", "D": "UN", "Z": "ZO", "I": "ID", "T": "ST"}
#: The number of tasks whose frames the scan alone finds exactly, and of all tasks. Stale frames
#: are sometimes as plausible as the right ones.
BY_SCAN = {
    "2006": (94, 94),
    "2006-pae": (94, 94),
    "2006-x86_64": (92, 94),
    "shadow": (94, 94),
    "xen3": (94, 94),
    "32on64": (89, 89),
    "modern": (89, 89),
    "modern-hypercall-page": (89, 89),
}


class Opened(NamedTuple):
    """A synthetic dump, opened."""

    files: SyntheticDump
    dump: xk.Dump

    def domain(self, number: int = 0, **options: Any) -> xk.Domain:
        """A domain with its kernel."""
        return self.dump.domain(number, str(self.files.vmlinux), **options)

    def plan(self, number: int = 0) -> Plan:
        """The plan of a domain."""
        (found,) = (each for each in self.files.plan["domains"] if each["id"] == number)
        return dict(found)


Open = Callable[[str], Opened]
Traced = Callable[[str, int], list[tuple[Trace, Plan]]]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """``opened("2006")``: the dump of that kind, written once."""

    @cache
    def make(kind: str) -> Opened:
        files = write_dump(tmp_path_factory.mktemp(kind), like=kind)
        return Opened(files, xk.open(str(files.vmcore)))

    return make


@pytest.fixture(scope="module")
def traced(opened: Open) -> Traced:
    """``traced("2006", 0)``: every backtrace of that domain, with its plan."""

    @cache
    def trace(kind: str, number: int) -> list[tuple[Trace, Plan]]:
        return compare(opened(kind), number)

    return trace


def compare(dump: Opened, number: int = 0, **options: Any) -> list[tuple[Trace, Plan]]:
    """The backtrace of every task of a domain, with the plan of the task."""
    planned = {int(task["task"], 16): task for task in dump.plan(number)["tasks"]}
    traces = bt.run(dump.domain(number, **options), bt.Options(all=True)).traces
    assert len(traces) == len(planned)
    return [(trace, planned[trace.task.address]) for trace in traces]


def frames(trace: Trace) -> list[tuple[int, int, str | None, bool]]:
    """A backtrace in the plan's terms."""
    return [
        (frame.pc, frame.sp, None if frame.user else frame.symbol, frame.interrupted)
        for frame in trace.frames
    ]


def planned_frames(trace: Trace, plan: Plan) -> list[tuple[int, int, str | None, bool]]:
    """The frames that can be found of those in the plan.

    All but the innermost of a running vCPU whose registers are not in the dump.
    """
    found = [
        (int(frame["pc"], 16), int(frame["sp"], 16), frame["function"], frame["interrupted"])
        for frame in plan["frames"]
    ]
    return found[1:] if plan["on_cpu"] and trace.registers is None else found


def bare(registers: Mapping[str, int]) -> dict[str, int]:
    """Registers by common names: the names in pt_regs, PRSTATUS and debuggers differ."""
    pattern = re.compile(r"^(orig_)?[er](?=[a-z]{2}$|flags$)|^x(?=[a-z]s$)")
    return {pattern.sub(r"\1", name): value for name, value in registers.items()}


def planned_registers(planned: Mapping[str, str]) -> dict[str, int]:
    """The registers in the plan, by the same names."""
    return bare({name: int(value, 16) for name, value in planned.items()})


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_header(kind: str, number: int, opened: Open) -> None:
    planned = opened(kind).plan(number)["header"]
    header = sys.run(opened(kind).domain(number)).header
    assert (header.cpus, header.date, header.task_count, header.mhz) == tuple(
        planned[name] for name in ("cpus", "date", "tasks", "mhz")
    )
    assert header.uptime == int(planned["uptime"])
    assert header.memory == planned["memory_pages"] * 4096
    assert header.load is not None
    assert [load / 2048 for load in header.load] == pytest.approx(planned["load_average"], abs=0.01)
    for name in ("nodename", "release", "version"):
        assert header.uts[name] == planned[name]
    if "panic" not in planned:
        assert header.panic is None
        return
    assert header.panic == SYSRQ.get(kind, planned["panic"])
    assert header.task is not None
    assert (header.task.pid, header.task.comm, hex(header.task.address), header.task.cpu) == tuple(
        planned[name] for name in ("pid", "command", "task", "cpu")
    )


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_tasks(kind: str, number: int, opened: Open) -> None:
    found = ps.run(opened(kind).domain(number)).processes
    assert sorted(
        (
            hex(one.task.address),
            one.task.pid,
            one.task.tgid,
            one.task.comm,
            one.task.cpu,
            one.state,
            one.ppid,
            hex(one.task.stack),
        )
        for one in found
    ) == sorted(
        (
            *(task[name] for name in ("task", "pid", "tgid", "comm", "cpu")),
            STATES[task["state"]],
            task["parent"],
            task["stack"],
        )
        for task in opened(kind).plan(number)["tasks"]
    )


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_every_frame_of_every_task(kind: str, number: int, traced: Traced) -> None:
    """All kinds have call frame information or ORC, so no frame is unreliable.

    Except in modules of kernels without ORC, which have neither: their callers are guesses.
    """
    in_module = 0
    for trace, plan in traced(kind, number):
        assert frames(trace) == planned_frames(trace, plan), trace.task.comm
        assert trace.stopped is None or not plan["frames"], trace.task.comm
        for callee, frame in pairwise(trace.frames):
            assert not frame.guess or callee.module, trace.task.comm
            in_module += callee.module is not None
    assert in_module >= 2 or number


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_slots_of_return_addresses(kind: str, number: int, traced: Traced) -> None:
    """Before Linux 4.9, crash prints thread.sp in brackets for a sleeping task's first frame."""
    for trace, plan in traced(kind, number):
        planned = plan["frames"][len(plan["frames"]) - len(trace.frames) :]
        for frame, expected in zip(trace.frames, planned, strict=True):
            slot = expected["slot"]
            if slot is None and not expected["interrupted"]:
                slot = plan["switched_at"]
            if slot is not None:
                assert hex(frame.slot) == slot, trace.task.comm


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "2006-x86_64"])
def test_user_registers(kind: str, traced: Traced) -> None:
    checked = 0
    for trace, plan in traced(kind, 0):
        user = [frame.registers or {} for frame in trace.frames if frame.user]
        planned = plan.get("user_registers")
        if planned is None or not plan["frames"]:
            assert not user
            continue
        assert [bare(registers) for registers in user] == [planned_registers(planned)]
        checked += 1
    assert checked >= 40


def test_user_registers_of_a_system_call_that_saved_nine(traced: Traced) -> None:
    """Linux before 4.1 on x86_64: callee-saved registers are in the frames above, if saved."""
    checked = 0
    for trace, plan in traced("2006-x86_64", 0):
        if "user_registers" not in plan:
            continue
        planned = planned_registers(plan["user_registers"])
        (found,) = (bare(frame.registers or {}) for frame in trace.frames if frame.user)
        assert {name: found.get(name) for name in planned} == planned, trace.task.comm
        assert set(found) - set(planned) <= {"bx", "bp", "r12", "r13", "r14", "r15"}
        checked += 1
    assert checked > 40


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_registers_of_running_tasks(kind: str, number: int, opened: Open, traced: Traced) -> None:
    in_dump = opened(kind).files.plan["registers_in_dump"]
    running = [(trace, plan) for trace, plan in traced(kind, number) if trace.task.active]
    assert running
    for trace, plan in running:
        if not in_dump:
            assert trace.registers is None
            assert trace.where == "its own stack"
            continue
        assert trace.registers is not None
        found = bare(trace.registers)
        planned = planned_registers(plan["registers"])
        if opened(kind).dump.native.word == 8:
            # A 64-bit Xen leaves them in the processor until it runs another guest.
            planned = {name: planned[name] for name in planned if name not in SELECTORS}
        assert {name: found.get(name) for name in planned} == planned
        assert trace.frames[0].interrupted


@pytest.mark.parametrize("kind", KINDS)
def test_the_scan_alone(kind: str, opened: Open) -> None:
    whole = [
        frames(trace) == planned_frames(trace, plan)
        for trace, plan in compare(opened(kind), unwind=["scan"])
    ]
    assert (sum(whole), len(whole)) == BY_SCAN[kind]
    assert sum(whole) >= 0.95 * len(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_notes(kind: str, opened: Open) -> None:
    shown = notes.run(opened(kind).dump)
    assert isinstance(shown, notes.Notes)
    found = [decoded.note for decoded in shown.notes]
    planned = opened(kind).files.plan["notes"]
    assert [(note.name, hex(note.type), note.size) for note in found] == [
        (note["name"], note["type"], note["size"]) for note in planned
    ]
    for note, expected in zip(found, planned, strict=True):
        assert expected["data"] in (None, note.data.hex())


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_log(kind: str, number: int, opened: Open) -> None:
    planned = opened(kind).plan(number)["log"]
    found = log.run(opened(kind).domain(number)).lines
    assert [(line.level, line.text) for line in found] == [
        (line["level"], line["text"]) for line in planned
    ]
    for line, expected in zip(found, planned, strict=True):
        if line.time is not None:
            assert line.time == pytest.approx(expected["seconds"] * 1e9, abs=1000)


@pytest.mark.parametrize(
    ("kind", "number", "source"),
    [(kind, number, source) for kind, number in DOMAINS for source in NAMES],
)
def test_p2m(kind: str, number: int, source: str, opened: Open) -> None:
    dump = opened(kind)
    plan = dump.plan(number)
    if source not in plan["p2m_sources"]:
        with pytest.raises(xk.AbsentError, match=f"domain {number}: no P2M by {source!r}"):
            dump.domain(number, p2m_source=source)
        return
    p2m = dump.domain(number, p2m_source=source).p2m
    assert p2m.source == source
    for expected in plan["p2m"]["samples"]:
        pfn, meaning = int(expected["pfn"], 16), expected["kind"]
        mfn = None if expected["mfn"] is None else int(expected["mfn"], 16)
        if pfn >= p2m.pages:
            # A tree of frame lists has no count: it ends with the last pfn that has a frame.
            assert (source, meaning) == ("list", "invalid"), expected
            assert p2m.entry(pfn) == ("out of range", None)
            continue
        assert p2m.entry(pfn) == (meaning, mfn), expected
        if meaning == "frame":
            assert p2m.resolve(pfn) == mfn
        else:
            with pytest.raises(xk.AbsentError):
                p2m.resolve(pfn)


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_the_sources_of_a_p2m_agree(kind: str, number: int, opened: Open) -> None:
    dump = opened(kind)
    found = check.run(dump.dump, check.Options(number, str(dump.files.vmlinux)))
    usable = [offered.name for offered in found.offered if offered.problem is None]
    assert sorted(set(usable)) == sorted(dump.plan(number)["p2m_sources"])
    assert len(found.pairs) == len(usable) - 1
    assert found.disagreements == 0


def test_a_source_that_the_dump_lacks(opened: Open, capsys: pytest.CaptureFixture[str]) -> None:
    files = opened("2006").files
    arguments = [str(files.vmlinux), str(files.vmcore)]
    assert main(["sys", "--p2m-source", "linear", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xkdump: ")
    assert err.count("\n") == 1
    assert "'linear'" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--like", "windows"], "unknown kind of dump 'windows'"),
        (["--memory", "1M"], "at least 64 MiB"),
        (["--like", "2006", "--memory", "128M"], "at least"),
        (["--like", "xen3", "--memory", "8G"], "at most 3 GiB"),
    ],
)
def test_a_dump_that_cannot_be_written(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "dump"
    assert main(["sample", str(target), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err
    assert err.count("\n") == 1
    assert not target.exists()
