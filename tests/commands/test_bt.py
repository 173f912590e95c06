"""The output of a command when the dump lacks the requested data."""

from pathlib import Path

import pytest

import xenkdump_fast as xk
from tests.xen.patched import patched
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("unreadable") / "dump", like="modern")


@pytest.mark.parametrize("options", [[], ["-a"]])
def test_no_run_queue(
    options: list[str], synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    domain = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))
    (offsets,) = domain.kernel.symbols.all("__per_cpu_offset")
    at = domain.virtual.translate(offsets.address)
    with patched(Path(synthetic.vmcore), {at: b"\x41" * offsets.size}):
        status = main(["bt", *options, str(synthetic.vmlinux), str(synthetic.vmcore)])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert "the run queue of CPU 0 is not in the dump" in err
    assert err.splitlines()[-1].endswith("no task that a CPU was running can be read")
