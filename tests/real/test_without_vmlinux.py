"""Real kernels without their vmlinux: symbols, types and unwind tables from memory."""

import json
from collections.abc import Callable
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast import cli
from xenkdump_fast.commands import mod
from xenkdump_fast.linux import header, printk
from xenkdump_fast.linux.system import Linux

from .conftest import VMLINUX, X86_64

pytestmark = pytest.mark.real

DumpFile = Callable[[str], str]
#: Dumps with the domains in them.
DOMAINS = [
    ("xen417-dom0", 0),
    *(("xen417-three-domains", number) for number in range(3)),
    *(("xen417-mixed-pcpus", number) for number in range(3)),
    *(("xen420-pv-pvh", number) for number in range(3)),
    ("bare-x86_64", 0),
    ("linux73-bare", 0),
]
OTHERS = {"xen420-pv-pvh": "vmlinux-6.12.117"}


def backtraces(kernel: Linux) -> dict[int, Any]:
    """The frames of every task, by its address."""
    return {
        task.address: [
            (frame.pc, frame.sp, frame.symbol, frame.offset, frame.guess)
            for frame in kernel.backtrace(task).frames
        ]
        for task in kernel.tasks()
    }


@pytest.mark.parametrize(("name", "number"), DOMAINS)
def test_backtraces(
    dump_file: DumpFile, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    # Whatever is installed on this machine.
    monkeypatch.setattr("xenkdump_fast.session.debug_files.find", lambda *_: None)
    vmlinux = dump_file(OTHERS.get(name) or VMLINUX.get(name, X86_64))
    with xk.open(dump_file(f"{name}/vmcore")) as dump:
        kernel = dump.domain(number).kernel
        assert kernel.image.is_memory
        assert backtraces(kernel) == backtraces(dump.domain(number, vmlinux).kernel)


@pytest.mark.parametrize("name", ["xen417-three-domains", "xen420-pv-pvh"])
def test_all_domains_at_once(
    dump_file: DumpFile,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """The dump alone gives what each domain's vmlinux gives."""
    monkeypatch.setattr("xenkdump_fast.session.debug_files.find", lambda *_: None)
    vmcore, vmlinux = dump_file(f"{name}/vmcore"), dump_file(VMLINUX.get(name, X86_64))

    def document(*arguments: str) -> Any:
        assert cli.main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    found = document("bt", "-a", vmcore, "--domain", "all")["domains"]
    assert [domain["domain"] for domain in found] == [0, 1, 2]
    for domain in found:
        alone = document("bt", "-a", vmlinux, vmcore, "--domain", str(domain["domain"]))
        assert domain["tasks"] == alone["tasks"]


@pytest.mark.parametrize("name", ["bare-i386", "bare-i386-pae"])
def test_a_kernel_without_the_names_of_variables(dump_file: DumpFile, name: str) -> None:
    """Debian's i386 kernels have no CONFIG_KALLSYMS_ALL."""
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(0)
    kernel = domain.kernel
    assert kernel.symbols.get("schedule") is not None
    with pytest.raises(xk.AbsentError, match=r"no symbol runqueues .* its vmlinux is needed"):
        kernel.tasks()
    with pytest.raises(xk.AbsentError, match=r"no symbol prb .* its vmlinux is needed"):
        printk.lines(kernel)
    with pytest.raises(xk.AbsentError, match=r"no symbol modules .* its vmlinux is needed"):
        mod.run(domain)
    assert header.read(kernel).task_count is None
    assert any("a single one is assumed" in text for text in kernel.warnings)
