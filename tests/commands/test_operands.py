"""If an operand matches nothing, the others are printed, and the exit status is 1."""

import pytest

from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("operands") / "dump", like="modern")


def run(
    command: str, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    status = main([command, str(synthetic.vmlinux), str(synthetic.vmcore), *words])
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "good", "bad", "problem"),
    [
        ("ps", "1340", "99999", "has no task 99999"),
        ("bt", "1340", "99999", "has no task 99999"),
        ("vtop", "linux_banner", "nosuch", "nosuch: neither an address nor a symbol"),
    ],
)
def test_other_operands_are_printed(
    command: str,
    good: str,
    bad: str,
    problem: str,
    synthetic: SyntheticDump,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = run(command, synthetic, capsys, good)
    assert alone[0] == 0
    for words in ((good, bad), (bad, good)):
        status, out, err = run(command, synthetic, capsys, *words)
        assert (status, out) == (1, alone[1])
        assert problem in err
    status, out, err = run(command, synthetic, capsys, bad, bad)
    assert (status, out) == (1, "")
    assert err.count(problem) == 1


@pytest.mark.parametrize("option", ["-a", "--all"])
def test_all_tasks_and_one_task(
    option: str, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run("bt", synthetic, capsys, "1340", option)
    assert (status, out) == (2, "")
    assert "not allowed with a pid" in err
