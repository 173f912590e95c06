"""gdb on real dumps: every frame of every task, and user memory.

With a vmlinux that has DWARF, gdb finds most callers itself. Such a file is used where it is
installed on this machine, or in a folder of XKDUMP_DEBUG_PATH.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import xenkdump_fast as xk
from tests.bridges.gdb.client import Client
from tests.bridges.gdb.conftest import connect
from tests.bridges.gdb.test_gdb import FRAMES, frames, has_python
from xenkdump_fast.bridges.gdb.threads import Threads
from xenkdump_fast.session import debug_files

from .conftest import VMLINUX, X86_64

__all__ = ["connect"]  # a fixture

#: dump, number of the domain, truth.
CASES = [
    ("xen417-three-domains", 0, "truth-dom0.json"),
    ("xen417-three-domains", 1, "truth-dom1.json"),
    ("xen417-three-domains", 2, None),
    ("xen417-mixed-pcpus", 0, "truth-dom0.json"),
    ("xen417-mixed-pcpus", 1, "truth-dom1.json"),
    ("xen420-pv-pvh", 0, "truth-dom0.json"),
    ("xen420-pv-pvh", 1, "truth-pv1.json"),
    ("xen420-pv-pvh", 2, "truth-pvh1.json"),
    ("bare-x86_64", 0, "truth.json"),
    ("bare-i386-pae", 0, None),
]


#: Prints a string by its symbol, which gdb has moved by the KASLR offset.
BANNER = "x/s (char *)&linux_banner"


def pcs(listed: list[Any]) -> list[tuple[int, int]]:
    return [(int(frame["pc"], 16), int(frame["sp"], 16)) for frame in listed]


def run_gdb(vmlinux: str, dump: str, number: int) -> str:
    command = [sys.executable, "-m", "xenkdump_fast", "gdb", "--tasks", "--domain", str(number)]
    done = subprocess.run(
        [
            *command,
            vmlinux,
            dump,
            "--",
            "-nx",
            "-batch",
            "-ex",
            BANNER,
            "-ex",
            "backtrace",
            "-ex",
            f"source {FRAMES}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=200,
        check=True,
    )
    return done.stdout


@pytest.mark.real
@pytest.mark.parametrize("with_dwarf", [False, True], ids=["as given", "DWARF"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_every_frame_of_every_task(
    case: tuple[str, int, str | None],
    with_dwarf: bool,
    dump_file: Callable[[str], str],
    truth: Callable[[str], Any],
) -> None:
    if shutil.which("gdb") is None or not has_python():
        pytest.skip("gdb, or its Python, is not installed")
    name, number, facts = case
    dump, vmlinux = dump_file(f"{name}/vmcore"), dump_file(VMLINUX.get(name, X86_64))
    kernel = xk.open(dump).domain(number, vmlinux).kernel
    if with_dwarf:
        found = debug_files.find(kernel.image.build_id, kernel.release)
        if found is None or found.path == vmlinux:
            pytest.skip(f"no vmlinux of {kernel.release} with DWARF on this machine")
        vmlinux = found.path
    text = run_gdb(vmlinux, dump, number)
    if name != "bare-i386-pae":  # its vmlinux here lacks sections that gdb needs for any symbol
        assert f'"Linux version {kernel.release} ' in text
    assert "Backtrace stopped" not in text
    shown = frames(text)
    threads = Threads(kernel, all_tasks=True)
    assert sorted(shown) == [thread.id for thread in threads.all]
    expected = (
        {}
        if facts is None
        else {
            int(task["task"], 16): pcs(task["frames"])
            for task in truth(f"{name}/{facts}")["tasks"]
            if task["frames"]
        }
    )
    compared = 0
    for thread in threads.all:
        trace = kernel.backtrace(thread.task)
        ours = [(frame.pc, frame.sp) for frame in trace.frames]
        if "at its caller of" in threads.state(thread).note:
            del ours[0]
        if ours and trace.stopped is None:
            compared += 1
            assert shown[thread.id] == ours, thread
        if thread.task.address in expected and thread.cpu is None:
            # On i386 and in some references the frame in user space is missing.
            reference = expected[thread.task.address]
            assert shown[thread.id][: len(reference)] == reference, thread
    assert compared > 100
    assert compared >= len(expected) - len(kernel.active)


@pytest.mark.real
@pytest.mark.parametrize("name", ["xen417-dom0", "bare-i386-pae"])
def test_user_memory(
    name: str, domain: Callable[[str], xk.Domain], connect: Callable[..., Client]
) -> None:
    """The command lines of processes, by the thread that is selected."""
    dom = domain(name)
    kernel = dom.kernel
    client = connect(dom, tasks=True)
    threads = client.document("threads:read:", 4096).findall("thread")
    tasks = {task.pid: task for task in kernel.tasks() if task.pid}
    found = {}
    for thread in threads:
        task = tasks.get(int((re.search(r"pid (\d+)", thread.text or "") or [""])[1]))
        mm = 0 if task is None else kernel.read(task.address, "task_struct.mm")
        assert client.ask(f"Hg{thread.attrib['id']}") == b"OK"
        if task is None or mm == 0:
            assert client.ask("m400000,8") == b"E0e"
            continue
        start = kernel.read(mm, "mm_struct.arg_start")
        text = bytes.fromhex(client.ask(f"m{start:x},8").decode())
        assert text == dom.user(task).read(start, 8)
        found[task.comm] = text
    assert found["do_kdump"] == b"/bin/sh\0"
    assert found["t-busyloop"] == b"busyloop"
    assert len(set(found.values())) > 10
