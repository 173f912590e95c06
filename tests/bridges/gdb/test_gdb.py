"""gdb itself on synthetic dumps."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import xenkdump_fast as xk
import xenkdump_forge
from xenkdump_fast import cli
from xenkdump_fast.bridges.gdb.threads import Threads
from xenkdump_fast.commands import gdb as command
from xenkdump_fast.linux import panic

pytestmark = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")

XKDUMP = [sys.executable, "-m", "xenkdump_fast"]


def gdb(directory: Path, *commands: str, options: tuple[str, ...] = ()) -> str:
    """What gdb prints, on stdout and stderr."""
    files = [str(directory / "vmlinux"), str(directory / "vmcore")]
    words = [word for command in commands for word in ("-ex", command)]
    done = subprocess.run(
        [*XKDUMP, "gdb", *options, *files, "--", "-nx", "-batch", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("kind", ["modern", "2006"])
def test_threads_and_memory(
    kind: str, sample: Callable[[str], Path], domain: Callable[[str], xk.Domain]
) -> None:
    dom0 = domain(kind)
    kernel = dom0.kernel
    text = gdb(
        sample(kind),
        "x/xb 0",
        "info threads",
        "x/s (char*)&linux_banner",
        "thread find acpid" if kind != "2006" else "thread find smartd",
        options=("--tasks",),
    )
    for task in kernel.tasks():
        assert f'"{task.comm}" (' in text
        assert f"pid {task.pid}," in text or f"pid {task.pid})" in text
    # The panicking task is selected.
    panicking = panic.task(kernel)
    assert panicking is not None
    (line,) = re.findall(r"^\* .*", text, re.MULTILINE)
    assert f"pid {panicking.pid}," in line
    banner = dom0.virtual.cstring(kernel.symbols["linux_banner"])
    assert banner.decode().strip()[:60] in text
    assert "has target name" in text
    assert "Cannot access memory at address 0x0" in text
    assert "detached" in text


@cache
def has_python() -> bool:
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", "python print([])"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout == "[]\n"


FRAMES = Path(__file__).with_name("frames.py")


def frames(text: str) -> dict[int, list[tuple[int, int]] | str]:
    """What ``frames.py`` printed: the frames of each thread, or an error."""
    found: dict[int, list[tuple[int, int]] | str] = {}
    for line in re.findall(r"^FRAMES (.*)$", text, re.M):
        number, listed = json.loads(line)
        found[number] = listed if isinstance(listed, str) else [(pc, sp) for pc, sp in listed]
    return found


@pytest.mark.parametrize("kind", ["modern", "modern-hypercall-page", "32on64", "2006"])
def test_every_frame_of_every_task(
    kind: str, sample: Callable[[str], Path], domain: Callable[[str], xk.Domain]
) -> None:
    """Most of these kernels have no DWARF; gdb gets the callers from the server."""
    if not has_python():
        pytest.skip("gdb has no Python")
    kernel = domain(kind).kernel
    text = gdb(sample(kind), "backtrace", f"source {FRAMES}", options=("--tasks",))
    assert "Backtrace stopped" not in text
    found = frames(text)
    threads = Threads(kernel, all_tasks=True)
    assert sorted(found) == [thread.id for thread in threads.all]
    compared = 0
    for thread in threads.all:
        expected = [(frame.pc, frame.sp) for frame in kernel.backtrace(thread.task).frames]
        stopped = kernel.backtrace(thread.task).stopped
        actual = found[thread.id]
        if "at its caller of" in threads.state(thread).note:
            del expected[0]
        if not expected:
            assert actual == "PC not available" or not actual
        elif stopped is None:
            compared += 1
            assert actual == expected, thread
        else:
            assert actual[: len(expected)] == expected
    assert compared > 50


def test_nothing_runs_or_changes(sample: Callable[[str], Path]) -> None:
    text = gdb(
        sample("modern"),
        "continue",
        "stepi",
        "p $rip = 0",
        "set var *(char *)&linux_banner = 0",
        "print (long)$rip == (long)$pc",
        "monitor kaslr",
        "kill",
    )
    assert text.count("a dump cannot run") == 2
    assert "a dump cannot be changed" in text
    assert "Cannot access memory at address" in text
    assert "$1 = 1" in text
    assert "KASLR offset: 0x0" in text


def test_arguments(sample: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    directory = sample("modern")
    files = [str(directory / "vmlinux"), str(directory / "vmcore")]
    assert cli.main(["gdb", *files, "batch"]) == 2
    assert "arguments of gdb follow --" in capsys.readouterr().err
    # Without a vmlinux gdb has no symbols, and the same threads.
    text = subprocess.run(
        [*XKDUMP, "gdb", files[1], "--", "-nx", "-batch", "-ex", "info threads"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "* 2    Thread 2" in text


def test_a_kernel_that_gdb_cannot_read(tmp_path: Path) -> None:
    made = xenkdump_forge.write_dump(tmp_path, "modern", images=True)
    dump = xk.open(made.vmcore)
    for name, is_read in (("System.map", False), ("vmlinuz-gzip", False), ("../vmlinux", True)):
        path = str(made.directory / "images" / name)
        assert (path in command.run(dump.domain(0, path)).argv) == is_read, name
    assert str(made.vmlinux) not in command.run(dump.domain(0)).argv
