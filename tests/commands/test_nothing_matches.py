"""Empty or incomplete output: a warning gives the reason."""

from pathlib import Path

import pytest

from xenkdump_fast.cli import main
from xenkdump_fast.linux import modules
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("nothing") / "dump", like="modern")


def test_no_module(
    synthetic: SyntheticDump, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(modules, "modules", lambda _: [])
    assert main(["mod", str(synthetic.vmlinux), str(synthetic.vmcore)]) == 0
    assert "warning: domain 0: no module is loaded" in capsys.readouterr().err


def test_a_vmlinux_that_matches_no_domain(
    synthetic: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_dump(tmp_path / "other", like="2006-x86_64")
    options = ["--vmlinux", str(synthetic.vmlinux), "--vmlinux", str(other.vmlinux)]
    assert main(["vcpus", *options, str(synthetic.vmcore)]) == 0
    out, err = capsys.readouterr()
    assert "+" in out  # symbols of the first
    assert f"{other.vmlinux} is not the kernel of any domain" in err
    assert str(synthetic.vmlinux) not in err


@pytest.mark.parametrize("command", ["domains", "vcpus"])
def test_force(
    command: str, synthetic: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    symbols = tmp_path / "xen-syms.map"
    symbols.write_text("ffff82d040200000 T _start\nffff82d040200040 T __high_start\n")
    arguments = [command, "--xen-syms", str(symbols), str(synthetic.vmcore)]
    assert main(arguments) == 1
    assert "(--force continues anyway)" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    out, err = capsys.readouterr()
    assert out
    assert "is not the hypervisor of the dump" in err


def test_options_between_files(
    synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(synthetic.vmlinux), "--domain", "1", str(synthetic.vmcore)]) == 0
    assert capsys.readouterr().out.startswith("P2M OF DOMAIN 1\n")
