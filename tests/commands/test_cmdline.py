"""``cmdline``."""

from pathlib import Path

import pytest

import xenkdump_fast as xk
from tests.rendering import json, text
from tests.xen.patched import patched
from xenkdump_fast.commands import cmdline
from xenkdump_fast.commands.contract import UsageError
from xenkdump_forge import write_dump


def test_an_array_before_2_6_21(tmp_path: Path) -> None:
    sample = write_dump(tmp_path / "dump", "2006")
    domain = xk.open(sample.vmcore).domain(0, sample.vmlinux)
    line = "root=/dev/sda1 ro console=tty0 crashkernel=64M@32M"
    assert text(cmdline.run(domain)) == f"{line}\n"
    assert json(cmdline.run(domain)) == {"domain": 0, "command_line": line}


def test_a_pointer_since_2_6_21(tmp_path: Path) -> None:
    sample = write_dump(tmp_path / "dump", "modern")
    domain = xk.open(sample.vmcore).domain(0, sample.vmlinux)
    kernel = domain.kernel
    with pytest.raises(xk.AbsentError, match="saved_command_line is NULL"):
        cmdline.run(domain)
    # Any string in the kernel's memory is sufficient.
    banner = kernel.symbol("linux_banner")
    at = domain.virtual.translate(kernel.symbol("saved_command_line"))
    with patched(Path(sample.vmcore), {at: banner.to_bytes(8, "little")}):
        assert json(cmdline.run(domain))["command_line"] == kernel.string(banner)


def test_processes_without_user_space(tmp_path: Path) -> None:
    sample = write_dump(tmp_path / "dump", "modern")
    domain = xk.open(sample.vmcore).domain(0, sample.vmlinux)
    (task,) = (task for task in domain.kernel.tasks() if task.pid == 2)
    found = json(cmdline.run(domain, cmdline.Options(["2"])))
    assert found["processes"] == [{"pid": 2, "comm": task.comm, "arguments": None}]
    assert text(cmdline.run(domain, cmdline.Options(["2"]))) == f"2  [{task.comm}]\n"
    with pytest.raises(UsageError, match="not allowed"):
        cmdline.run(domain, cmdline.Options(["2"], all=True))
    with pytest.raises(xk.AbsentError, match="no task"):
        cmdline.run(domain, cmdline.Options(["no such task"]))
