"""``bt`` on real dumps, compared with drgn."""

import re
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from tests import rendering
from xenkdump_fast.commands import bt

from .conftest import DUMPS, VMLINUX, X86_64

#: Size of a stack of Linux on x86_64.
STACK = 16 << 10
#: dump, truth, number of the domain.
CASES = [
    ("xen417-dom0/vmcore", "xen417-dom0/truth.json", 0),
    ("xen417-three-domains/vmcore", "xen417-three-domains/truth-dom0.json", 0),
    ("xen417-mixed-pcpus/vmcore", "xen417-mixed-pcpus/truth-dom0.json", 0),
    ("xen417-three-domains/vmcore", "xen417-three-domains/truth-dom1.json", 1),
    ("xen417-mixed-pcpus/vmcore", "xen417-mixed-pcpus/truth-dom1.json", 1),
    ("xen420-pv-pvh/vmcore", "xen420-pv-pvh/truth-pvh1.json", 2),
    ("bare-x86_64/vmcore", "bare-x86_64/truth.json", 0),
    ("linux73-bare/vmcore", "linux73-bare/truth.json", 0),
]


def is_user(frame: dict[str, Any]) -> bool:
    """Whether the reference has a frame in user space; not all references mark it."""
    return bool(frame.get("user")) or int(frame["pc"], 16) < 1 << 63


def kernel_frames(frames: list[Any]) -> list[tuple[int, str]]:
    return [(int(f["pc"], 16), f["symbol"]) for f in frames if not is_user(f)]


def ours(task: dict[str, Any]) -> list[tuple[int, str]]:
    return [(int(f["pc"], 16), f["symbol"]) for f in task["frames"]]


@pytest.fixture(params=CASES, ids=lambda case: case[1].split(".")[0])
def case(request: Any, dump_file: Any, truth: Any) -> tuple[xk.Domain, Any]:
    dump, facts, domain = request.param
    image = dump_file(VMLINUX.get(dump.split("/")[0], X86_64))
    opened = xk.open(dump_file(dump)).domain(domain, image)
    return opened, truth(facts)


def test_every_frame_of_every_sleeping_task(case: tuple[xk.Domain, Any]) -> None:
    domain, truth = case
    found = {int(task["task"], 16): task for task in all_tasks(domain)}
    assert sorted(found) == sorted(int(task["task"], 16) for task in truth["tasks"])
    compared = 0
    for expected in truth["tasks"]:
        task = found[int(expected["task"], 16)]
        assert (task["pid"], task["comm"]) == (expected["pid"], expected["comm"])
        if not expected["frames"]:
            continue
        compared += 1
        assert ours(task) == kernel_frames(expected["frames"]), task["comm"]
        # bare-x86_64's do_kdump is in a part of __crash_kexec without ORC data.
        assert task["running"] or not any(frame["guess"] for frame in task["frames"])
        user = [frame for frame in expected["frames"] if is_user(frame)]
        registers = task.get("user_registers")
        assert ([registers["rip"]] if registers else []) == [f["pc"] for f in user]
    assert compared > 100


def test_every_running_task_from_the_registers_xen_saved(case: tuple[xk.Domain, Any]) -> None:
    domain, truth = case
    if not truth["running"] and "vcpus" not in truth:
        pytest.skip("the reference has no running task")
    found = rendering.json(bt.run(domain, bt.Options(active=True)))["tasks"]
    by_pc = {task["frames"][0]["sp"]: task for task in found if task["frames"]}
    for expected in truth.get("vcpus", truth["running"]):
        first = expected["frames"][0]
        task = by_pc[first["sp"]]
        assert ours(task) == kernel_frames(expected["frames"])
        assert int(task["registers"]["rip"], 16) == int(first["pc"], 16)


def test_the_default_is_the_panicking_task(case: tuple[xk.Domain, Any]) -> None:
    """The default task is the one that called panic() according to the reference."""
    domain, truth = case
    if domain.id != 0:
        pytest.skip("only dom0 panicked")
    (task,) = rendering.json(bt.run(domain))["tasks"]
    stacks = [*truth["tasks"], *truth.get("vcpus", truth["running"])]
    (expected,) = (
        one for one in stacks if "panic" in [frame["symbol"] for frame in one["frames"] or []]
    )
    frames = expected["frames"]
    if "comm" not in expected:
        # A vCPU: its stack pointer identifies the task.
        sp = int(frames[0]["sp"], 16)
        (expected,) = (
            one
            for one in truth["tasks"]
            if "stack" in one and 0 <= sp - int(one["stack"], 16) < STACK
        )
    assert (task["pid"], task["comm"]) == (expected["pid"], expected["comm"])
    assert ours(task) == kernel_frames(frames)


def test_text_matches_crash_for_every_sleeping_task(
    case: tuple[xk.Domain, Any], request: Any, truth: Any
) -> None:
    """The text of each task that crash can unwind is identical."""
    domain, _ = case
    if domain.id != 0:
        pytest.skip("crash cannot open a domU")
    folder = request.node.callspec.params["case"][0].split("/")[0]
    crash = read_crash(folder)
    text = rendering.text(bt.run(domain, bt.Options(all=True)))
    blocks = {block.split("\n")[0]: block.strip("\n") for block in text.split("\n\n")}
    # crash omits the frames below xen_start_kernel on CPU 0's idle stack.
    same = [head for head, block in crash.items() if blocks.get(head, "").startswith(block)]
    sleeping = [head for head, block in crash.items() if "] __schedule at" in block]
    assert len(sleeping) > 100
    assert [head for head in sleeping if head not in same] == []


def read_crash(folder: str) -> dict[str, str]:
    path = DUMPS / folder / "crash" / "foreach-bt.txt"
    if not path.is_file():
        pytest.skip(f"no output of crash: {path}")
    # crash 8.0.6 reports Xen's second note as an invalid NT_PRSTATUS in the first line.
    lines = [line for line in path.read_text().split("\n") if not line.startswith("WARNING:")]
    blocks = "\n".join(lines).split("\n\n")
    return {block.strip("\n").split("\n")[0]: block.strip("\n") for block in blocks}


#: The hash in .orc_header: of a kernel before Linux 7.1, and of one after.
ORC_HASHES = [
    ("xen420-pv-pvh/vmcore", "vmlinux-6.12.117", "fe5d32bf581bd63b", "6.4"),
    ("linux73-bare/vmcore", "vmlinux-7.3.4", "137c36ad7627c4dd", "7.1"),
]


@pytest.fixture(params=ORC_HASHES, ids=lambda case: case[1])
def orc_case(request: Any, dump_file: Any) -> tuple[str, bytes, bytes, str]:
    """A dump, its image, the hash of its ORC version, and the first release with it."""
    dump, image, hash_, since = request.param
    content = Path(dump_file(image)).read_bytes()
    assert content.count(bytes.fromhex(hash_)) == 1
    return dump_file(dump), content, bytes.fromhex(hash_), since


def all_tasks(domain: xk.Domain) -> list[Any]:
    """``bt --all``, as JSON."""
    tasks: list[Any] = rendering.json(bt.run(domain, bt.Options(all=True)))["tasks"]
    return tasks


def traces(domain: xk.Domain) -> list[Any]:
    return [
        task["frames"] for task in rendering.json(bt.run(domain, bt.Options(all=True)))["tasks"]
    ]


def orc_warnings(domain: xk.Domain) -> list[str]:
    return [text for text in domain.warnings if "ORC" in text]


def test_an_unknown_version_of_orc_is_verified_by_the_code(
    orc_case: tuple[str, bytes, bytes, str], tmp_path: Path
) -> None:
    dump, content, hash_, since = orc_case
    known, unknown = tmp_path / "known", tmp_path / "unknown"
    known.write_bytes(content)
    unknown.write_bytes(content.replace(hash_, bytes(len(hash_))))
    expected = xk.open(dump).domain(0, str(known))
    found = xk.open(dump).domain(0, str(unknown))
    assert traces(found) == traces(expected)
    assert orc_warnings(expected) == []
    (warning,) = orc_warnings(found)
    match = re.search(rf"that of Linux {since}, .* (\d+) of (\d+) functions", warning)
    assert match is not None, warning
    agreeing, functions = map(int, match.groups())
    assert functions > 80
    assert agreeing >= functions * 0.95


def test_orc_that_contradicts_its_header_is_not_used(
    orc_case: tuple[str, bytes, bytes, str], tmp_path: Path
) -> None:
    dump, content, hash_, _ = orc_case
    (other,) = (bytes.fromhex(h) for _, _, h, _ in ORC_HASHES if bytes.fromhex(h) != hash_)
    image = tmp_path / "image"
    image.write_bytes(content.replace(hash_, other))
    domain = xk.open(dump).domain(0, str(image))
    assert all(frame["how"] != "orc" for frames in traces(domain) for frame in frames)
    (warning,) = orc_warnings(domain)
    assert warning.startswith("ORC is not used: ")


def test_kernel_threads_end_with_their_entry_without_orc(dump_file: Any, truth: Any) -> None:
    """Since Linux 6.6 ret_from_fork is C, and called by ret_from_fork_asm."""
    dump, image = dump_file("linux73-bare/vmcore"), dump_file("vmlinux-7.3.4")
    domain = xk.open(dump).domain(0, image, unwind=["scan"])
    found = {
        t["task"]: ours(t) for t in rendering.json(bt.run(domain, bt.Options(all=True)))["tasks"]
    }
    threads = [
        task
        for task in truth("linux73-bare/truth.json")["tasks"]
        if task["frames"] and task["frames"][-1]["symbol"] == "ret_from_fork_asm"
    ]
    assert len(threads) > 50
    for task in threads:
        assert found[task["task"]] == kernel_frames(task["frames"]), task["comm"]
