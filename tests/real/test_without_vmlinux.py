"""Real kernels without their vmlinux: symbols, types and unwind tables from memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
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
    """Debian's i386 kernels have no CONFIG_KALLSYMS_ALL, and no BTF.

    Their vmlinux has DWARF with call frames, so that the frames are found by other methods.
    """
    with xk.open(dump_file(f"{name}/vmcore")) as dump:
        domain, with_file = dump.domain(0), dump.domain(0, dump_file(VMLINUX[name]))
        kernel, expected = domain.kernel, with_file.kernel
        assert "runqueues" not in kernel.symbols
        wrong = [
            symbol
            for symbol in kernel.symbols
            if all(symbol.address != other.address for other in expected.symbols.all(symbol.name))
        ]
        assert wrong == []
        assert kernel.tasks() == expected.tasks()
        found, wanted = backtraces(kernel), backtraces(expected)
        frames = [(task, frame) for task in wanted for frame in wanted[task]]
        same = [frame[:4] in [mine[:4] for mine in found[task]] for task, frame in frames]
        assert sum(same) >= 0.99 * len(same)
        assert sum(map(len, found.values())) <= 1.01 * len(frames)
        assert list(printk.lines(kernel)) == list(printk.lines(expected))
        assert [module.name for module in mod.run(domain).modules] == [
            module.name for module in mod.run(with_file).modules
        ]
        facts, wanted_facts = header.read(kernel), header.read(expected)
        for field in ("cpus", "task_count", "load", "uts", "mhz", "panic", "state"):
            assert getattr(facts, field) == getattr(wanted_facts, field), field
        assert (facts.task, facts.date) == (wanted_facts.task, None)
        assert any("DATE is not known" in text for text in kernel.warnings)


@pytest.mark.parametrize("name", ["bare-i386", "bare-i386-pae"])
def test_a_vmlinuz_without_the_names_of_variables(dump_file: DumpFile, name: str) -> None:
    """The variables that the running kernel leads to are used with a vmlinuz, too."""
    with xk.open(dump_file(f"{name}/vmcore")) as dump:
        domain = dump.domain(0)
        known = {symbol.name: symbol.address for symbol in domain.kernel.image.symbols()}
        vmlinuz: Any = SimpleNamespace(
            word=4, symbol_source="kallsyms", is_memory=False, symbols=lambda: {"init_task": 0}
        )
        location = domain.kernel.location
        image = domain._with_variables(vmlinuz, location)
        assert image.is_memory
        assert {symbol.name: symbol.address for symbol in image.symbols()} == known
        vmlinuz.symbols = lambda: {"modules": 0}
        assert domain._with_variables(vmlinuz, location) is vmlinuz


#: Prints the peak of resident memory in MB, which includes the mapped pages of the dump.
PEAK = """
import re, sys
from xenkdump_fast import cli
from xenkdump_fast.session import debug_files
debug_files.find = lambda *_: None
cli.main(sys.argv[1:])
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())
print(int(peak[1]) // 1024)
"""


@pytest.mark.parametrize(
    ("name", "domain"), [("bare-i386", "0"), ("xen420-pv-pvh", "2"), ("xen417-mixed-pcpus", "all")]
)
def test_memory_of_a_search_is_given_back(dump_file: DumpFile, name: str, domain: str) -> None:
    """All memory of bare-i386, 285 MB, is searched for VMCOREINFO, which it does not have."""
    command = ["bt", "--all", "--domain", domain, dump_file(f"{name}/vmcore")]
    if name == "bare-i386":
        del command[2:4]
    run = [sys.executable, "-c", PEAK, *command]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert int(printed.splitlines()[-1]) < 125
