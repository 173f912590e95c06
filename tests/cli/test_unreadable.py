"""What a command says where the dump holds nothing of what was asked for."""

from pathlib import Path

import pytest
from tests.xen.patched import patched

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_forge import Sample, forge


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return forge(tmp_path_factory.mktemp("unreadable") / "dump", like="modern")


@pytest.mark.parametrize("options", [[], ["-a"]])
def test_no_run_queue(
    options: list[str], sample: Sample, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = xk.open(str(sample.vmcore)).domain(0, str(sample.vmlinux))
    (offsets,) = domain.kernel.symbols.all("__per_cpu_offset")
    at = domain.virtual.translate(offsets.address)
    with patched(Path(sample.vmcore), {at: b"\x41" * offsets.size}):
        status = main(["bt", *options, str(sample.vmlinux), str(sample.vmcore)])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert "the run queue of CPU 0 is not in the dump" in err
    assert err.splitlines()[-1].endswith("no task that a CPU was running can be read")
