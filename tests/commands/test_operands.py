"""If an operand matches nothing, the others are printed, and the exit status is 1."""

from pathlib import Path

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


@pytest.mark.parametrize("parts", [1, 3])
def test_the_vmlinux_of_the_environment_and_parts_of_a_dump(
    parts: int,
    synthetic: SyntheticDump,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = write_dump(tmp_path, like="modern", memory=64 << 20, format="kdump-split")
    names = [str(tmp_path / name) for name in ("vmcore", "vmcore.2", "vmcore.3")][:parts]
    assert main(["bt", str(split.vmlinux), *names, "1340"]) == 0
    expected = capsys.readouterr()
    monkeypatch.setenv("XKDUMP_VMLINUX", str(split.vmlinux))
    assert main(["bt", *names, "1340"]) == 0
    assert capsys.readouterr() == expected
    # A vmlinux that is given counts, before a dump or after it.
    monkeypatch.setenv("XKDUMP_VMLINUX", str(tmp_path / "plan.json"))
    assert main(["bt", str(split.vmlinux), *names, "1340"]) == 0
    assert capsys.readouterr() == expected
    # An operand that is the name of a file is an operand.
    monkeypatch.setenv("XKDUMP_VMLINUX", str(split.vmlinux))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1340").touch()
    assert main(["bt", *names, "1340"]) == 0
    assert capsys.readouterr() == expected
