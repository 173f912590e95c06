"""Selection of tasks and of messages by options and names."""

import json

import pytest

from xenkdump_fast.cli import main
from xenkdump_fast.linux.tasks import Task, find
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("selection") / "dump", like="modern")


def task(pid: int, comm: str) -> Task:
    return Task(0xF000 + pid, pid, pid, comm, 0, 0, 0, 0, False, False)


TASKS = [task(2, "kthreadd"), task(5, "kworker/0:0"), task(6, "kworker/u4:0"), task(7, "a/b")]
TASKS += [task(8, "a"), task(9, "[x]")]


@pytest.mark.parametrize(
    ("wanted", "pids"),
    [
        ("kthreadd", [2]),
        ("[kthreadd]", [2]),
        ("kworker", [5, 6]),
        ("[kworker]", [5, 6]),
        ("kworker/0:0", [5]),
        ("[kworker/u4:0]", [6]),
        ("a", [8]),
        ("[x]", [9]),
        ("kwork", []),
        ("", []),
        ("[]", []),
    ],
)
def test_names(wanted: str, pids: list[int]) -> None:
    assert [found.pid for found in find(TASKS, wanted)] == pids


def run(
    synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str], command: str, *options: str
) -> list[str]:
    assert main([command, *options, str(synthetic.vmlinux), str(synthetic.vmcore)]) == 0
    return capsys.readouterr().out.splitlines()


def test_states(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads("\n".join(run(synthetic, capsys, "ps", "--json")))["tasks"]
    states = {task["state"] for task in found}
    assert len(states) > 1
    for state in states:
        some = json.loads("\n".join(run(synthetic, capsys, "ps", "--json", "--state", state)))
        assert some["tasks"] == [task for task in found if task["state"] == state]
    heading = run(synthetic, capsys, "ps", "--state", "tr")
    assert len(heading) == 1


def test_backtraces_by_state(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    every = json.loads("\n".join(run(synthetic, capsys, "bt", "--json", "--all")))["tasks"]
    listed = json.loads("\n".join(run(synthetic, capsys, "ps", "--json")))["tasks"]
    for state in ("UN", "ZO"):
        pids = {task["pid"] for task in listed if task["state"] == state}
        assert pids
        some = json.loads("\n".join(run(synthetic, capsys, "bt", "--json", "--state", state)))
        assert some["tasks"] == [task for task in every if task["pid"] in pids]
    files = [str(synthetic.vmlinux), str(synthetic.vmcore)]
    assert main(["bt", *files, "--state", "tr"]) == 1
    assert "domain 0: no task is in state TR" in capsys.readouterr().err
    assert main(["bt", *files, "1340", "--state", "UN"]) == 2
    assert "--state: not allowed with a pid or a task" in capsys.readouterr().err
    assert main(["bt", "--hypervisor", files[1], "--state", "UN"]) == 2
    assert "--state: not allowed with argument --hypervisor" in capsys.readouterr().err


def test_messages(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads("\n".join(run(synthetic, capsys, "log", "--json")))["lines"]
    for options, expected in (
        (["-n", "3"], whole[-3:]),
        (["-n", "0"], []),
        (["-n", "1000000000000"], whole),
        (["--level", "err"], [line for line in whole if line["level"] <= 3]),
        (["--level", "4", "-n", "1"], [line for line in whole if line["level"] <= 4][-1:]),
    ):
        found = json.loads("\n".join(run(synthetic, capsys, "log", "--json", *options)))
        assert found["lines"] == expected
    assert 0 < len([line for line in whole if line["level"] <= 3]) < len(whole)


def test_dates(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    plain, dated = (run(synthetic, capsys, "log", *options) for options in ([], ["-T"]))
    assert [line.partition("] ")[2] for line in plain] == [
        line.partition("] ")[2] for line in dated
    ]
    assert all(" UTC 20" in line.partition("]")[0] for line in dated)


@pytest.mark.parametrize("options", [["--level", "8"], ["--level", "x"], ["-n", "-1"], ["-n", "x"]])
def test_wrong_values(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["log", *options, "vmlinux", "vmcore"])
    assert stopped.value.code == 2
    assert options[1] in capsys.readouterr().err


def test_messages_of_xen(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "--hypervisor", "-n", "1", str(synthetic.vmcore)]) == 2
    assert "not available with --hypervisor" in capsys.readouterr().err
