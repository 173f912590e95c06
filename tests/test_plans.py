"""Every kind of forged dump against the forge's own plan of it: header, tasks, frames and all.

The plan is told from the model that the dump was written from, and the forge shares no line with
the reader: where the two agree, neither has misread.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_fast.commands import bt, check, log, notes, ps, sys
from xenkdump_fast.linux.backtrace import Trace
from xenkdump_fast.xen.p2m_sources import NAMES
from xenkdump_forge import KINDS, Sample, forge

Plan = dict[str, Any]
#: Kinds that hold a second domain, with the same kernel.
DOMAINS = [*((kind, 0) for kind in KINDS), ("modern", 1), ("modern-hypercall-page", 1)]
#: What crash prefers to the panic's own message: what sysrq said before.
SYSRQ = {"32on64": "sysrq: SysRq : Trigger a crash"}
SELECTORS = ("ds", "es", "fs", "gs")
#: task_struct.state as ps spells it.
STATES = {"R": "RU", "S": "IN", "D": "UN", "Z": "ZO", "I": "ID", "T": "ST"}
#: Of how many tasks the scan alone finds every frame and no other, and how many there are. A pair
#: of stale frames sometimes fits as well as the true ones.
BY_SCAN = {
    "2006": (93, 94),
    "2006-pae": (94, 94),
    "2006-x86_64": (92, 94),
    "shadow": (94, 94),
    "xen3": (94, 94),
    "32on64": (89, 89),
    "modern": (89, 89),
    "modern-hypercall-page": (89, 89),
}


class Forged(NamedTuple):
    """A sample, and the dump that it is."""

    sample: Sample
    dump: xk.Dump

    def domain(self, number: int = 0, **options: Any) -> xk.Domain:
        """A domain with its kernel."""
        return self.dump.domain(number, str(self.sample.vmlinux), **options)

    def plan(self, number: int = 0) -> Plan:
        """What the forge says of that domain."""
        (found,) = (told for told in self.sample.plan["domains"] if told["id"] == number)
        return dict(found)


Forge = Callable[[str], Forged]
Traced = Callable[[str, int], list[tuple[Trace, Plan]]]


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    """``forged("2006")``: the sample of that kind, made once."""

    @cache
    def make(kind: str) -> Forged:
        sample = forge(tmp_path_factory.mktemp(kind), like=kind)
        return Forged(sample, xk.open(str(sample.vmcore)))

    return make


@pytest.fixture(scope="module")
def traced(forged: Forge) -> Traced:
    """``traced("2006", 0)``: every backtrace of that domain, beside what the plan says of it."""

    @cache
    def trace(kind: str, number: int) -> list[tuple[Trace, Plan]]:
        return compare(forged(kind), number)

    return trace


def compare(sample: Forged, number: int = 0, **options: Any) -> list[tuple[Trace, Plan]]:
    """The backtrace of every task of a domain, beside what the plan says of the task."""
    planned = {int(task["task"], 16): task for task in sample.plan(number)["tasks"]}
    traces = bt.run(sample.domain(number, **options), bt.Options(all=True)).traces
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

    All of them; but where a running vCPU's registers are not in the dump, the innermost, which
    nothing on the stack tells of.
    """
    found = [
        (int(frame["pc"], 16), int(frame["sp"], 16), frame["function"], frame["interrupted"])
        for frame in plan["frames"]
    ]
    return found[1:] if plan["on_cpu"] and trace.registers is None else found


def bare(registers: Mapping[str, int]) -> dict[str, int]:
    """Registers by names without a width: each of pt_regs, PRSTATUS and debuggers has its own."""
    pattern = re.compile(r"^(orig_)?[er](?=[a-z]{2}$|flags$)|^x(?=[a-z]s$)")
    return {pattern.sub(r"\1", name): value for name, value in registers.items()}


def planned_registers(planned: Mapping[str, str]) -> dict[str, int]:
    """Registers as the plan has them, by the same names."""
    return bare({name: int(value, 16) for name, value in planned.items()})


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_header(kind: str, number: int, forged: Forge) -> None:
    planned = forged(kind).plan(number)["header"]
    header = sys.run(forged(kind).domain(number)).header
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
def test_tasks(kind: str, number: int, forged: Forge) -> None:
    found = ps.run(forged(kind).domain(number)).processes
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
        for task in forged(kind).plan(number)["tasks"]
    )


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_every_frame_of_every_task(kind: str, number: int, traced: Traced) -> None:
    """All kinds have call frame information or ORC, so nothing is left to guess."""
    for trace, plan in traced(kind, number):
        assert frames(trace) == planned_frames(trace, plan), trace.task.comm
        assert trace.stopped is None or not plan["frames"], trace.task.comm
        assert not any(frame.guess for frame in trace.frames), trace.task.comm


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_where_each_return_address_lies(kind: str, number: int, traced: Traced) -> None:
    """Of a sleeping task's first frame crash has thread.sp in brackets, before Linux 4.9."""
    for trace, plan in traced(kind, number):
        planned = plan["frames"][len(plan["frames"]) - len(trace.frames) :]
        for frame, told in zip(trace.frames, planned, strict=True):
            slot = told["slot"]
            if slot is None and not told["interrupted"]:
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
    """Linux before 4.1 on x86_64: what C preserves is in the frames above, if anywhere."""
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
def test_registers_of_running_tasks(kind: str, number: int, forged: Forge, traced: Traced) -> None:
    in_dump = forged(kind).sample.plan["registers_in_dump"]
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
        if forged(kind).dump.native.word == 8:
            # A 64-bit Xen leaves them in the processor until it runs another guest.
            planned = {name: planned[name] for name in planned if name not in SELECTORS}
        assert {name: found.get(name) for name in planned} == planned
        assert trace.frames[0].interrupted


@pytest.mark.parametrize("kind", KINDS)
def test_the_scan_alone(kind: str, forged: Forge) -> None:
    whole = [
        frames(trace) == planned_frames(trace, plan)
        for trace, plan in compare(forged(kind), unwind=["scan"])
    ]
    assert (sum(whole), len(whole)) == BY_SCAN[kind]
    assert sum(whole) >= 0.95 * len(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_notes(kind: str, forged: Forge) -> None:
    found = [decoded.note for decoded in notes.run(forged(kind).dump).notes]
    planned = forged(kind).sample.plan["notes"]
    assert [(note.name, hex(note.type), note.size) for note in found] == [
        (note["name"], note["type"], note["size"]) for note in planned
    ]
    for note, told in zip(found, planned, strict=True):
        assert told["data"] in (None, note.data.hex())


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_log(kind: str, number: int, forged: Forge) -> None:
    planned = forged(kind).plan(number)["log"]
    found = log.run(forged(kind).domain(number)).lines
    assert [(line.level, line.text) for line in found] == [
        (line["level"], line["text"]) for line in planned
    ]
    for line, told in zip(found, planned, strict=True):
        if line.time is not None:
            assert line.time == pytest.approx(told["seconds"] * 1e9, abs=1000)


@pytest.mark.parametrize(
    ("kind", "number", "source"),
    [(kind, number, source) for kind, number in DOMAINS for source in NAMES],
)
def test_p2m(kind: str, number: int, source: str, forged: Forge) -> None:
    sample = forged(kind)
    plan = sample.plan(number)
    if source not in plan["p2m_sources"]:
        with pytest.raises(xk.AbsentError, match=f"offers no P2M of domain {number}"):
            sample.domain(number, p2m_source=source)
        return
    p2m = sample.domain(number, p2m_source=source).p2m
    assert p2m is not None
    assert p2m.source == source
    for told in plan["p2m"]["samples"]:
        pfn, meaning = int(told["pfn"], 16), told["kind"]
        mfn = None if told["mfn"] is None else int(told["mfn"], 16)
        if pfn >= p2m.pages:
            # A tree of frame lists has no count: it ends with the last pfn that has a frame.
            assert (source, meaning) == ("list", "invalid"), told
            assert p2m.entry(pfn) == ("out of range", None)
            continue
        assert p2m.entry(pfn) == (meaning, mfn), told
        if meaning == "frame":
            assert p2m.resolve(pfn) == mfn
        else:
            with pytest.raises(xk.AbsentError):
                p2m.resolve(pfn)


@pytest.mark.parametrize(("kind", "number"), DOMAINS)
def test_the_sources_of_a_p2m_agree(kind: str, number: int, forged: Forge) -> None:
    sample = forged(kind)
    found = check.run(sample.dump, check.Options(number, str(sample.sample.vmlinux)))
    usable = [offered.name for offered in found.offered if offered.problem is None]
    assert sorted(set(usable)) == sorted(sample.plan(number)["p2m_sources"])
    assert len(found.pairs) == len(usable) - 1
    assert found.disagreements == 0


def test_a_source_that_the_dump_does_not_offer(
    forged: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = forged("2006").sample
    arguments = [str(sample.vmlinux), str(sample.vmcore)]
    assert main(["sys", "--p2m-source", "linear", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xkdump: ")
    assert err.count("\n") == 1
    assert "'linear'" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--like", "windows"], "no kind of sample is called 'windows'"),
        (["--memory", "1M"], "at least 64 MiB"),
        (["--like", "2006", "--memory", "128M"], "at least"),
        (["--like", "xen3", "--memory", "8G"], "at most 3 GiB"),
    ],
)
def test_a_sample_that_cannot_be_made(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "dump"
    assert main(["sample", str(target), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert complaint in err
    assert err.count("\n") == 1
    assert not target.exists()
