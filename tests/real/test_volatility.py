"""volatility3's plugins on domains of real dumps, compared with our readers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast.linux import modules

from .conftest import VMLINUX, X86_64

pytest.importorskip("volatility3", reason="pip install 'xenkdump_fast[volatility]'")

from tests.bridges.volatility import plugins

pytestmark = pytest.mark.real

#: A bare machine with KASLR, dom0, a PV domain, a PVH domain with KASLR.
CASES = [
    ("bare-x86_64", 0),
    ("xen417-three-domains", 0),
    ("xen417-three-domains", 1),
    ("xen420-pv-pvh", 2),
]
#: Bits of a virtual address that volatility3 keeps.
MASK = (1 << 48) - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Symbol files, one for each kernel."""
    return tmp_path_factory.mktemp("volatility")


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def opened(
    request: Any, dump_file: Callable[[str], str], folder: Path
) -> Iterator[tuple[xk.Domain, dict[str, object]]]:
    """A domain, and volatility3's configuration for it."""
    name, number = request.param
    vmlinux = dump_file(VMLINUX.get(name, X86_64))
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number, vmlinux)
    with plugins.prepared(domain, folder) as config:
        yield domain, config


def test_tasks_are_those_of_ps(opened: tuple[xk.Domain, dict[str, object]]) -> None:
    domain, config = opened
    found = plugins.rows(config, "linux.pslist.PsList")
    # volatility3 leaves out tasks without namespaces, which have exited.
    running = [task for task in domain.kernel.tasks() if task.pid and not task.exit_state]
    leaders = [task for task in running if task.pid == task.tgid]
    assert len(leaders) > 30
    listed = {(row["OFFSET (V)"] & MASK, row["PID"], row["COMM"]) for row in found}
    assert listed == {(task.address & MASK, task.pid, task.comm) for task in leaders}


def test_modules_are_those_of_mod(opened: tuple[xk.Domain, dict[str, object]]) -> None:
    domain, config = opened
    found = plugins.rows(config, "linux.lsmod.Lsmod")
    listed = {(row["Offset"] & MASK, row["Module Name"]) for row in found}
    loaded = [(module.address & MASK, module.name) for module in modules.modules(domain.kernel)]
    # The guests have loaded none.
    assert domain.id or len(loaded) > 3
    assert listed == set(loaded)


def test_files_and_command_lines(opened: tuple[xk.Domain, dict[str, object]]) -> None:
    """User memory is read through the page tables of processes."""
    domain, config = opened
    names = {task.pid: task.comm for task in domain.kernel.tasks()}
    arguments = {row["PID"]: row["ARGS"] for row in plugins.rows(config, "linux.psaux.PsAux")}
    read = [pid for pid, text in arguments.items() if isinstance(text, str) and text[:1] == "/"]
    assert len(read) > 3
    files = plugins.rows(config, "linux.lsof.Lsof")
    assert {row["PID"] for row in files} <= names.keys()
    assert any(row["Path"] == "/dev/console" for row in files)


def test_the_command(
    dump_file: Callable[[str], str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from xenkdump_fast import cli

    files = [dump_file(X86_64), dump_file("xen417-three-domains/vmcore")]
    options = ["--domain", "1", "--cache-dir", str(folder), *files]
    known = sorted(folder.glob("isf-*"))
    assert cli.main(["volatility", *options, "--", "-q", "linux.pslist", "--pid", "1"]) == 0
    written = capsys.readouterr().out
    assert [line.split("\t")[1:5] for line in written.splitlines() if line.startswith("0x")] == [
        ["1", "1", "0", "init"]
    ]
    # The symbol file was used again.
    assert sorted(folder.glob("isf-*")) == known
    with pytest.raises(SystemExit) as ended:
        cli.main(["volatility", *options, "--", "-q", "linux.nothing"])
    assert ended.value.code == 2
