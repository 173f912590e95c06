"""Signatures of published logs: facts about many versions of Linux and Xen."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from xenkdump_fast import signature
from xenkdump_fast.signature import messages


def excerpts() -> dict[str, tuple[str, str]]:
    """The expected normal form and the text of each excerpt, by name."""
    found = {}
    for part in (Path(__file__).parent / "logs.txt").read_text().split("\n== ")[1:]:
        name, expected, text = part.split("\n", 2)
        found[name] = expected.removeprefix("expect: "), text
    return found


EXCERPTS = excerpts()


@pytest.mark.parametrize("name", EXCERPTS)
def test_signature(name: str) -> None:
    expected, text = EXCERPTS[name]
    found = signature.of_log(text)
    assert found is not None
    assert found.normal == expected


def test_different_faults_have_different_signatures() -> None:
    hashes: dict[str, list[str]] = {}
    for name, (_, text) in EXCERPTS.items():
        found = signature.of_log(text)
        assert found is not None
        hashes.setdefault(found.hash, []).append(name)
    assert [names for names in hashes.values() if len(names) > 1] == []
    assert len(hashes) > 40


#: A line of each kind of message, as printed.
LINES = {
    "panic": "Kernel panic - not syncing: x",
    "stack-overflow": "BUG: TASK stack guard page was hit at ffffc90000000000",
    "null-dereference": "Unable to handle kernel NULL pointer dereference at virtual address 0",
    "page-fault": "BUG: unable to handle kernel paging request at ffffc90000000000",
    "general-protection": "general protection fault: 0000 [#1] SMP",
    "double-fault": "traps: PANIC: double fault, error_code: 0x0",
    "bug": "kernel BUG at mm/slub.c:1!",
    "invalid-opcode": "invalid opcode: 0000 [#1] SMP",
    "divide-error": "divide error: 0000 [#1] SMP",
    "stack-segment": "stack segment: 0000 [#1] SMP",
    "segment-not-present": "segment not present: 0000 [#1] SMP",
    "invalid-tss": "invalid TSS: 0000 [#1] SMP",
    "alignment-check": "alignment check: 0000 [#1] SMP",
    "breakpoint": "int3: 0000 [#1] SMP",
    "debug-exception": "debug: 0000 [#1] SMP",
    "overflow": "overflow: 0000 [#1] SMP",
    "bounds": "bounds: 0000 [#1] SMP",
    "simd-exception": "simd exception: 0000 [#1] SMP",
    "control-protection": "traps: Missing ENDBR: foo+0x0/0x10",
    "cfi": "CFI failure at foo+0x1/0x2 (target: bar+0x0/0x4; expected type: 0x1)",
    "oops": "Oops: 0002 [#1] SMP",
    "machine-check": "mce: [Hardware Error]: Machine check: Processor context corrupt",
    "soft-lockup": "NMI watchdog: BUG: soft lockup - CPU#3 stuck for 23s! [x:1]",
    "hard-lockup": "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
    "hung-task": "INFO: task x:1 blocked for more than 120 seconds.",
    "rcu-stall": "INFO: rcu_sched self-detected stall on CPU { 3}",
    "kasan": "BUG: KASAN: use-after-free in foo+0x1/0x2",
    "kfence": "BUG: KFENCE: out-of-bounds read in foo+0x1/0x2",
    "kmsan": "BUG: KMSAN: uninit-value in foo+0x1/0x2",
    "kcsan": "BUG: KCSAN: data-race in foo / bar",
    "ubsan": "UBSAN: shift-out-of-bounds in kernel/sched/fair.c:7712:14",
    "atomic-sleep": "BUG: scheduling while atomic: x/1/0x00000002",
    "warning": "WARNING: at kernel/softirq.c:143 local_bh_enable_ip+0x8d/0xb0()",
    "out-of-memory": "x invoked oom-killer: gfp_mask=0x280da, order=0",
    "nmi": "NMI: PCI system error (SERR) for reason b1 on CPU 0.",
}


def test_every_kind_has_a_line() -> None:
    assert LINES.keys() == {message.kind for message in messages.MESSAGES}


@pytest.mark.parametrize("kind", LINES)
def test_kinds_of_lines(kind: str) -> None:
    found = messages.of(LINES[kind])
    assert found is not None
    assert found.kind == kind


def test_no_message_is_without_the_words() -> None:
    for _, text in EXCERPTS.values():
        for line in text.splitlines():
            by_pattern = (one for one in messages.MESSAGES if re.search(one.pattern, line))
            assert messages.of(line) is next(by_pattern, None)


@pytest.mark.parametrize("message", messages.MESSAGES, ids=lambda one: one.kind)
def test_the_words_of_messages(message: messages.Message) -> None:
    """Whatever a pattern matches has the texts by which lines are chosen."""

    @given(strategies.from_regex(message.pattern))
    @settings(derandomize=True, database=None, deadline=None, max_examples=50)
    def check(line: str) -> None:
        assert message.words in line
        assert any(word in line for word in messages._WORDS)

    check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fatal exception in interrupt", "panic(Fatal exception in interrupt)"),
        ("sysrq triggered crash", "sysrq"),
        ("softlockup: hung tasks", "soft-lockup"),
        ("Hard LOCKUP", "hard-lockup"),
        ("hung_task: blocked tasks", "hung-task"),
        ("RCU Stall", "rcu-stall"),
        ("System is deadlocked on memory", "out-of-memory"),
        ("stack-protector: Kernel stack is corrupted in: foo+0x1/0x2", "stack-protector"),
        ("corrupted stack end detected inside scheduler", "stack-overflow"),
        ("Timeout: Not all CPUs entered broadcast exception handler", None),
        ("Fatal machine check on current CPU", "machine-check"),
        ("NMI: Not continuing", "nmi"),
    ],
)
def test_panics_by_their_text(text: str, expected: str | None) -> None:
    found = signature.of_log(f"[ 1.0] Kernel panic - not syncing: {text}\n")
    assert found is not None
    assert found.normal == (expected or f"panic({text})")


def test_the_last_boot_with_a_fault_counts() -> None:
    boot = "[ 0.0] Linux version 6.1.0-56-amd64 (x)\n"
    first, second = "[ 9.0] divide error: 0000 [#1]\n", "[ 9.0] kernel BUG at x.c:1!\n"
    found = signature.of_log(boot + first + boot + second + boot)
    assert found is not None
    assert found.kind == "bug"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[ 1.0] WARNING: CPU: 1 PID: 1 at x.c:1 foo+0x1/0x2\n",  # the kernel went on
        "[ 1.0] x invoked oom-killer: gfp_mask=0x280da, order=0\n",
        "(XEN) Hardware Dom0 crashed: Executing kexec image on cpu0\n",
    ],
)
def test_no_fault(text: str) -> None:
    assert signature.of_log(text) is None
