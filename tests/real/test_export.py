"""Exported domains print the same, and other tools open them.

crash and drgn need a vmlinux with DWARF of the kernel: a file ``vmlinux*`` of its build id in a
folder of ``XKDUMP_DEBUG_PATH``. ``XKDUMP_CRASH`` names the crash to use.
"""

import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast import AbsentError
from xenkdump_fast._native import Image
from xenkdump_fast.cli import main
from xenkdump_fast.export import Request, of_domain
from xenkdump_fast.export import write as write_export
from xenkdump_fast.session.domain import Domain

from .conftest import VMLINUX, X86_64
from .copies import PAGE

pytestmark = pytest.mark.real

COMMANDS = (["bt", "--all"], ["ps"], ["log"], ["sys"], ["mod"], ["cmdline"])
#: What may differ: the names of the file and of the domain.
NAMES = re.compile(r"^ *(DUMPFILE|DOMAIN): .*\n\n?|domain \d+: ", re.MULTILINE)
#: crash does not list the tasks of Linux 6.1.192 and later before this version.
CRASH = (8, 0, 6)


class Case(NamedTuple):
    """A domain of a dump, and the reference data of its tasks."""

    dump: str
    domain: int
    truth: str | None = None

    def __str__(self) -> str:
        return f"{self.dump}, {self.domain}"


DOMAINS = [
    Case("xen417-three-domains", 0, "truth-dom0.json"),
    Case("xen417-three-domains", 1, "truth-dom1.json"),
    Case("xen417-three-domains", 2),
    Case("xen417-mixed-pcpus", 0, "truth-dom0.json"),
    Case("xen417-mixed-pcpus", 1, "truth-dom1.json"),
    Case("xen420-pv-pvh", 0, "truth-dom0.json"),
    Case("xen420-pv-pvh", 1, "truth-pv1.json"),
    Case("xen420-pv-pvh", 2, "truth-pvh1.json"),
]
BARE = [Case("bare-x86_64", 0), Case("linux73-bare", 0), Case("bare-i386-pae", 0)]
every = pytest.mark.parametrize("case", DOMAINS, ids=str)
one = pytest.mark.parametrize("case", DOMAINS[1:2], ids=str)

Exporter = Callable[..., Path]


@pytest.fixture
def exported(dump_file: Callable[[str], str], tmp_path: Path) -> Iterator[Exporter]:
    """``exported(case, "--format", "kdump")``: the path of the file, removed after the test."""
    path = tmp_path / "exported"

    def export(case: Case, *options: str) -> Path:
        files = [dump_file(VMLINUX.get(case.dump, X86_64)), dump_file(f"{case.dump}/vmcore")]
        command = ["export", *files, "--domain", str(case.domain), "-o", str(path), "--force"]
        assert main([*command, *options]) == 0
        return path

    yield export
    path.unlink(missing_ok=True)


def with_dwarf(vmlinux: str) -> str:
    """The vmlinux with DWARF of the same build; skips without one."""
    return dwarf_of(Image(vmlinux).build_id)


def dwarf_of(build: str | None) -> str:
    """The vmlinux with DWARF of this build; skips without one."""
    for folder in filter(None, os.environ.get("XKDUMP_DEBUG_PATH", "").split(":")):
        for path in sorted(Path(folder).glob("vmlinux*")):
            image = Image(str(path))
            if image.build_id == build and path.stat().st_size > 100 << 20:
                return str(path)
    pytest.skip(f"no vmlinux with DWARF of build {build} in XKDUMP_DEBUG_PATH")


@pytest.mark.parametrize("case", [*DOMAINS, *BARE], ids=str)
@pytest.mark.parametrize("form", ["elf", "kdump"])
def test_prints_the_same(
    case: Case,
    form: str,
    dump_file: Callable[[str], str],
    exported: Exporter,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = exported(case, "--format", form)
    capsys.readouterr()
    vmlinux, vmcore = dump_file(VMLINUX.get(case.dump, X86_64)), dump_file(f"{case.dump}/vmcore")
    for command in COMMANDS:
        assert main([*command, vmlinux, vmcore, "--domain", str(case.domain)]) == 0
        expected = capsys.readouterr()
        assert main([*command, vmlinux, str(path)]) == 0
        found = capsys.readouterr()
        assert NAMES.sub("", found.out) == NAMES.sub("", expected.out), command
        assert NAMES.sub("", found.err) == NAMES.sub("", expected.err), command


@one
@pytest.mark.parametrize("level", [2, 4, 8, 16, 30, 31])
def test_the_same_pages_as_makedumpfile(
    case: Case, level: int, exported: Exporter, tmp_path: Path
) -> None:
    program = shutil.which("makedumpfile")
    if program is None:
        pytest.skip("makedumpfile is not installed")
    whole, filtered = tmp_path / "whole", tmp_path / "filtered"
    exported(case).rename(whole)
    command = [program, "-l", "-d", str(level), str(whole), str(filtered)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = exported(case, "--format", "kdump", "--dump-level", str(level))
    assert np.array_equal(pages_in(found), pages_in(filtered))


def pages_in(path: Path) -> np.ndarray[Any, Any]:
    """The pages in the second bitmap of a kdump-compressed file."""
    data = path.read_bytes()
    sub, bitmaps, _ = struct.unpack_from("<III", data, 432)
    start = (1 + sub + bitmaps // 2) * PAGE
    bits = np.frombuffer(data[start : start + bitmaps // 2 * PAGE], np.uint8)
    return np.flatnonzero(np.unpackbits(bits, bitorder="little"))


def test_a_dump_level_that_cannot_be_determined(
    dump_file: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [dump_file(VMLINUX["linux73-bare"]), dump_file("linux73-bare/vmcore")]
    domain = xk.open(files[1]).domain(0, files[0])
    bare = domain.as_bare()
    for key in (b"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", b"OFFSET(page.flags)", b"SIZE(page)"):
        text = b"\n".join(line for line in bare.vmcoreinfo.split(b"\n") if key not in line)
        patched = xk.open(files[1]).domain(0, files[0])
        patched.as_bare().__dict__["vmcoreinfo"] = text
        with pytest.raises(AbsentError, match=re.escape(key.decode())):
            of_domain(patched, Request(str(tmp_path / "x"), level=31))


@every
def test_crash(
    case: Case, dump_file: Callable[[str], str], exported: Exporter, tmp_path: Path
) -> None:
    """It lists all tasks, and their stacks."""
    program = os.environ.get("XKDUMP_CRASH") or shutil.which("crash")
    if program is None:
        pytest.skip("crash is not installed (XKDUMP_CRASH names another)")
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    version = tuple(map(int, re.findall(r"crash (\d+)\.(\d+)\.(\d+)", text.stdout)[0]))
    if version < CRASH:
        pytest.skip(f"crash {version} does not list the tasks of these kernels")
    vmlinux = dump_file(VMLINUX.get(case.dump, X86_64))
    debug = with_dwarf(vmlinux)
    path = exported(case)
    (tmp_path / "commands").write_text("ps\nforeach bt\nexit\n")
    command = [program, "--no_scroll", "-i", str(tmp_path / "commands"), debug, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    tasks = xk.open(dump_file(f"{case.dump}/vmcore")).domain(case.domain, vmlinux).kernel.tasks()
    seen = re.findall(r"^PID: (\d+) ", done.stdout, re.MULTILINE)
    # CPUs without a running task of their own: crash does not count the idle tasks of offline ones.
    assert abs(len(seen) - len(tasks)) <= 1, done.stdout[-2000:]
    assert "crash> exit" in done.stdout


@every
def test_drgn(
    case: Case,
    dump_file: Callable[[str], str],
    exported: Exporter,
    truth: Callable[[str], Any],
) -> None:
    """Every sleeping task has the frames of the reference data."""
    drgn = pytest.importorskip("drgn", reason="drgn is not installed")
    from drgn.helpers.linux.pid import for_each_task

    if case.truth is None:
        pytest.skip("no reference data of this domain")
    known = {int(task["task"], 16): task for task in truth(f"{case.dump}/{case.truth}")["tasks"]}
    program = drgn.Program()
    program.set_core_dump(str(exported(case)))
    program.load_debug_info([with_dwarf(dump_file(VMLINUX.get(case.dump, X86_64)))])
    count = 0
    for task in for_each_task(program):
        expected = known.pop(task.value_())
        if expected["on_cpu"] or not expected["frames"]:
            continue
        frames = [frame.pc for frame in program.stack_trace(task) if not frame.is_inline]
        own = [int(frame["pc"], 16) for frame in expected["frames"]]
        assert kernel_pcs(frames) == kernel_pcs(own), expected["comm"]
        count += 1
    assert count > 100


def kernel_pcs(pcs: list[int]) -> list[int]:
    """Those of the kernel, without repetitions by inlined functions."""
    return [pc for i, pc in enumerate(pcs) if pc >> 47 and (i == 0 or pc != pcs[i - 1])]


@one
def test_gdb(case: Case, dump_file: Callable[[str], str], exported: Exporter) -> None:
    """It reads variables by their virtual addresses."""
    program = shutil.which("gdb")
    if program is None:
        pytest.skip("gdb is not installed")
    vmlinux = dump_file(VMLINUX.get(case.dump, X86_64))
    command = [program, "-batch", "-nx", "-ex", "x/s &linux_banner", "-ex", "info threads"]
    done = subprocess.run(
        [*command, vmlinux, str(exported(case))], capture_output=True, text=True, check=False
    )
    assert '"Linux version 6.1.0-56-amd64' in done.stdout
    assert "LWP 1" in done.stdout


@one
@pytest.mark.parametrize("form", ["elf", "kdump"])
def test_libkdumpfile(case: Case, form: str, exported: Exporter) -> None:
    kdumpfile = pytest.importorskip("kdumpfile", reason="python3-libkdumpfile is not installed")
    context = kdumpfile.kdumpfile(str(exported(case, "--format", form)))
    context.attr["addrxlat.ostype"] = "linux"
    assert context.attr["linux.uts.release"] == "6.1.0-56-amd64"
    stext = int(context.attr["linux.vmcoreinfo.SYMBOL"]["_stext"])
    virtual = context.read(kdumpfile.KDUMP_KVADDR, stext, 64)
    assert virtual == context.read(kdumpfile.KDUMP_MACHPHYSADDR, stext - 0xFFFFFFFF80000000, 64)


@pytest.mark.parametrize("case", [DOMAINS[1], BARE[0]], ids=str)
@pytest.mark.parametrize("form", ["elf", "lime"])
def test_volatility(
    case: Case, form: str, dump_file: Callable[[str], str], exported: Exporter, tmp_path: Path
) -> None:
    """Its own layer for ELF files finds all tasks, without our configuration."""
    pytest.importorskip("volatility3", reason="pip install 'xenkdump_fast[volatility]'")
    path = exported(case, "--format", form)
    vmlinux, vmcore = dump_file(VMLINUX.get(case.dump, X86_64)), dump_file(f"{case.dump}/vmcore")
    symbols, cache = tmp_path / "symbols", tmp_path / "cache"
    symbols.mkdir()
    cache.mkdir()
    command = ["isf", vmlinux, vmcore, "--domain", str(case.domain)]
    assert main([*command, "-o", str(symbols / "linux.json")]) == 0
    # Without the validation of the symbol file against its schema, which takes minutes.
    script = (
        "import sys; sys.argv[0] = 'vol'; sys.modules['jsonschema'] = None; "
        "from volatility3.cli import main; main()"
    )
    options = ["--offline", "-q", "-r", "csv", "--cache-path", str(cache)]
    files = ["-s", str(symbols), "-f", str(path)]
    program = [sys.executable, "-c", script]
    done = subprocess.run(
        [*program, *options, *files, "linux.pslist"], capture_output=True, text=True, check=False
    )
    seen = {int(pid) for pid in re.findall(r"^0,0x[0-9a-f]+,(\d+),", done.stdout, re.MULTILINE)}
    tasks = xk.open(vmcore).domain(case.domain, vmlinux).kernel.tasks()
    # It leaves out tasks that have exited, and threads.
    leaders = [task for task in tasks if task.pid == task.tgid]
    running = {task.pid for task in leaders if task.pid and not task.exit_state}
    assert len(running) > 30
    assert seen == running, done.stderr[-2000:]


@pytest.mark.parametrize("form", ["elf", "kdump"])
def test_a_guest_without_linux(
    form: str,
    dump_file: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A translated guest is exported without its kernel, as if it ran Windows."""

    def absent(_: Domain) -> None:
        raise AbsentError("no kernel")

    monkeypatch.setattr(Domain, "_find_kernel", absent)
    domain = xk.open(dump_file("xen420-pv-pvh/vmcore")).domain(2)
    request = Request(str(tmp_path / "out"), form)  # type: ignore[arg-type]
    source = of_domain(domain, request)
    assert any("no Linux kernel was found" in text for text in source.warnings)
    write_export(source, request)
    with pytest.raises(AbsentError, match="needs the kernel's page structs"):
        of_domain(domain, request._replace(level=8))
    monkeypatch.undo()
    with xk.open(tmp_path / "out") as found:
        assert not found.is_xen_host
        kinds = [note.kind for note in found.notes]
        assert kinds == ["prstatus", "qemu", "export"]
        assert found.notes[1].fields["cr3"] == domain.as_bare().root
        # It is complete: the kernel is found in it, after all.
        kernel = found.domain(0, dump_file(VMLINUX["xen420-pv-pvh"])).kernel
        assert len(kernel.tasks()) == 115


def test_xen(
    dump_file: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hypervisor alone: its console, its stacks, and its symbols in gdb."""
    xen_syms, vmcore = dump_file("xen-syms-4.20"), dump_file("xen420-pv-pvh/vmcore")
    path = str(tmp_path / "xen.vmcore")
    assert main(["export", "--hypervisor", xen_syms, vmcore, "-o", path]) == 0
    assert os.stat(path).st_size < os.stat(vmcore).st_size // 4
    capsys.readouterr()
    for command in (["log"], ["bt"]):
        assert main([*command, "--hypervisor", xen_syms, vmcore]) == 0
        expected = capsys.readouterr()
        assert main([*command, "--hypervisor", xen_syms, path]) == 0
        assert capsys.readouterr() == expected
    gdb = shutil.which("gdb")
    if gdb is not None:
        script = ["-ex", "p domain_list->vcpu[0]->domain->domain_id", "-ex", "info threads"]
        command = [gdb, "-batch", "-nx", *script, xen_syms, path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "$1 = 0\n" in done.stdout
        assert "elf_core_save_regs" in done.stdout
