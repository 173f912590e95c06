"""Text output names the domain if there are several."""

import pytest

from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("domain") / "dump", like="modern")


def lines(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    assert main([*options, str(synthetic.vmlinux), str(synthetic.vmcore)]) == 0
    return capsys.readouterr().out.splitlines()


def test_sys(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("0", "1"):
        found = lines(synthetic, capsys, "sys", "--domain", number)
        assert found[2] == f"      DOMAIN: {number}"


def test_bt(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(synthetic, capsys, "bt")[0].startswith("PID: ")
    assert lines(synthetic, capsys, "bt", "-a", "--domain", "1")[:2] == ["DOMAIN: 1", ""]
