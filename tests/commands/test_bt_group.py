"""``bt --group``: tasks with equal stacks."""

import json
from collections.abc import Callable
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("grouped") / "dump", like="modern")


@pytest.fixture
def run(
    synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    def call(*options: str) -> tuple[int, str, str]:
        status = main(["bt", *options, str(synthetic.vmlinux), str(synthetic.vmcore)])
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def stacks(synthetic: SyntheticDump) -> dict[tuple[Any, ...], list[xk.Task]]:
    """The tasks by their stacks, from the Python API."""
    kernel = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel
    found: dict[tuple[Any, ...], list[xk.Task]] = {}
    for task in kernel.tasks():
        trace = kernel.backtrace(task)
        frames = tuple(
            (None if frame.user else frame.pc, frame.user, frame.guess, frame.interrupted)
            for frame in trace.frames
        )
        found.setdefault((frames, trace.stopped), []).append(task)
    return found


def test_every_task_is_in_one_group(
    run: Callable[..., tuple[int, str, str]], stacks: dict[tuple[Any, ...], list[xk.Task]]
) -> None:
    status, out, _ = run("--all", "--group", "--json")
    assert status == 0
    groups = json.loads(out)["groups"]
    expected = {
        tuple(sorted((task.pid, hex(task.address)) for task in tasks)) for tasks in stacks.values()
    }
    found = [tuple((task["pid"], task["task"]) for task in group["tasks"]) for group in groups]
    assert set(found) == expected
    assert len(found) == len(expected) < sum(map(len, found))
    counts = [group["count"] for group in groups]
    assert counts == sorted(counts, reverse=True) == [len(tasks) for tasks in found]
    by_first = {group["tasks"][0]["task"]: group for group in groups}
    for (frames, why), tasks in stacks.items():
        first = min(tasks, key=lambda task: (task.pid, task.address))
        group = by_first[hex(first.address)]
        kernel = [(pc, guess, stop) for pc, user, guess, stop in frames if not user]
        assert [
            (int(frame["pc"], 16), frame["guess"], frame["interrupted"])
            for frame in group["frames"]
        ] == kernel
        assert group["user"] == any(user for _, user, _, _ in frames)
        assert group.get("why") == why


def test_text(
    run: Callable[..., tuple[int, str, str]], stacks: dict[tuple[Any, ...], list[xk.Task]]
) -> None:
    _, out, _ = run("--all", "--group")
    blocks = out.rstrip("\n").split("\n\n")
    assert len(blocks) == len(stacks)
    (_, most), *_ = sorted(stacks.items(), key=lambda item: -len(item[1]))
    heading, first, *_ = blocks[0].split("\n")
    names = ", ".join(f"{task.pid} ({task.comm})" for task in most[:8])
    assert heading == f"COUNT: {len(most):<5}  PIDS: {names}, and {len(most) - 8} more"
    assert first.startswith(" #0 __schedule+")


def test_the_order(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("--all", "--group", "--sort", "pid", "--json")
    pids = [group["tasks"][0]["pid"] for group in json.loads(out)["groups"]]
    assert pids == sorted(pids)
    _, out, _ = run("-a", "--group", "--sort", "cpu", "--json")
    cpus = [group["tasks"][0]["cpu"] for group in json.loads(out)["groups"]]
    assert cpus == [0, 1]


def test_of_a_state(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("--state", "UN", "--group", "--json")
    (group,) = json.loads(out)["groups"]
    assert [task["comm"] for task in group["tasks"]] == ["dd"]


def test_usage(
    run: Callable[..., tuple[int, str, str]],
    synthetic: SyntheticDump,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = run("--all", "--sort", "pid")
    assert (status, out) == (2, "")
    assert "argument --sort: needs --group" in err
    assert main(["bt", "--hypervisor", "--group", str(synthetic.vmcore)]) == 2
    problem = "argument --group: not allowed with argument --hypervisor"
    assert problem in capsys.readouterr().err
