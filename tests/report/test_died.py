"""What died, by the messages of Xen and of kernels."""

from typing import Any, NamedTuple

import pytest

from xenkdump_fast.report import crashes, died
from xenkdump_fast.report.model import Crash, Died


class Header(NamedTuple):
    reason: str | None
    crashed_on: int | None = None


class Gathered(NamedTuple):
    header: Header
    crash: Crash | None = None


def crash(domain: int, message: str) -> Crash:
    return {
        "who": "kernel",
        "domain": domain,
        "kind": crashes.kind_of(message),
        "message": message,
        "lines": [],
        "cpu": 0,
        "task": None,
        "frames": [],
        "oops": None,
    }


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Kernel panic - not syncing: sysrq triggered crash", "sysrq"),
        ("SysRq : Trigger a crashdump", "sysrq"),
        ("Kernel panic - not syncing: hung_task: blocked tasks", "hung task"),
        ("Kernel panic - not syncing: Hard LOCKUP", "watchdog"),
        ("Kernel panic - not syncing: softlockup: hung tasks", "watchdog"),
        ("Kernel panic - not syncing: RCU Stall", "watchdog"),
        ("Kernel panic - not syncing: NMI: Not continuing", "nmi"),
        ("Kernel panic - not syncing: Fatal machine check", "machine check"),
        ("Kernel panic - not syncing: System is deadlocked on memory", "out of memory"),
        ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b", "init"),
        ("Kernel panic - not syncing: Fatal exception in interrupt", "oops"),
        ("BUG: unable to handle kernel NULL pointer dereference at 00000000", "oops"),
        ("kernel BUG at mm/slub.c:305!", "oops"),
        ("Kernel panic - not syncing: VFS: Unable to mount root fs", "panic"),
    ],
)
def test_kinds(message: str, kind: str) -> None:
    assert crashes.kind_of(message) == kind


PANIC = "Kernel panic - not syncing: something"


def find(reason: str | None, *, own: Crash | None = None, **kernels: str) -> Died:
    """What died on a host with this reason and these panics, by domain (``d0``, ``d1``)."""
    found = {int(name[1:]): crash(int(name[1:]), text) for name, text in kernels.items()}
    xen: Any = Gathered(Header(reason), own)
    return died.find(xen, [], found, is_host=True)


def test_dom0() -> None:
    found = find("Hardware Dom0 crashed: Executing kexec image on cpu1", d0=PANIC, d3=PANIC)
    assert (found["who"], found["domain"], found["kind"]) == ("dom0", 0, "panic")
    assert [one["domain"] for one in found["others"]] == [3]
    assert found["doubts"] == []


def test_dom0_without_a_message() -> None:
    found = find("Hardware Dom0 crashed: Executing kexec image on cpu1")
    assert (found["who"], found["domain"], found["crash"]) == ("dom0", 0, None)
    assert found["doubts"]
    found = find("Hardware Dom0 shutdown: watchdog rebooting machine")
    assert (found["who"], found["kind"]) == ("dom0", "watchdog")
    assert "shut down" in found["summary"]


def test_a_domain() -> None:
    found = find(None, d2=PANIC)
    assert (found["who"], found["domain"]) == ("domain", 2)
    assert found["summary"].startswith("Domain 2 crashed")
    # It is not certain that the host was dumped for it.
    assert len(found["doubts"]) == 2


def test_an_oops_of_a_domain_that_went_on() -> None:
    found = find(None, d2="BUG: kernel NULL pointer dereference, address: 10")
    assert found["who"] == "unknown"
    (other,) = found["others"]
    assert other["domain"] == 2
    assert not died.is_fatal(other)


def test_xen() -> None:
    own = crash(0, "Panic on CPU 2: FATAL TRAP")
    own["who"], own["domain"] = "hypervisor", None
    found = find("Panic on CPU 2: FATAL TRAP", own=own, d0=PANIC)
    assert (found["who"], found["domain"]) == ("hypervisor", None)
    assert found["others"][0]["domain"] == 0


def test_a_domain_by_its_shutdown_code() -> None:
    domain: Any = {"id": 5, "state": ["crashed", "paused (1)"], "kernel": None}
    xen: Any = Gathered(Header(None))
    found = died.find(xen, [domain], {}, is_host=True)
    assert (found["who"], found["domain"]) == ("domain", 5)
    assert "domain 5: crashed" in found["evidence"][0]
    assert found["crash"] is None


def test_nothing() -> None:
    found = find(None)
    assert (found["who"], found["kind"], found["crash"]) == ("unknown", "unknown", None)
    bare = died.find(None, [], {}, is_host=False)
    assert bare["who"] == "unknown"


def test_a_bare_machine() -> None:
    found = died.find(None, [], {0: crash(0, PANIC)}, is_host=False)
    assert (found["who"], found["kind"]) == ("kernel", "panic")


class Xen:
    """A hypervisor without symbols."""

    word = 8
    symbols = None


@pytest.mark.parametrize(
    ("reason", "lines", "kind"),
    [
        ("Panic on CPU 0: Assertion failed", [], "panic"),
        ("FATAL TRAP: vector = 2 (nmi)", [], "nmi"),
        ("FATAL TRAP: vector = 18 (machine check)", [], "machine check"),
        ("FATAL TRAP: x", ["(XEN) Watchdog timer detects that CPU3 is stuck!"], "watchdog"),
        (None, ["(XEN) 'C' pressed -> triggering crashdump"], "requested"),
    ],
)
def test_kinds_of_xen(reason: str | None, lines: list[str], kind: str) -> None:
    found = crashes.of_xen(Xen(), reason, lines, [], None)  # type: ignore[arg-type]
    assert found is not None
    assert found["kind"] == kind


def test_not_xen() -> None:
    for reason in (None, "Hardware Dom0 crashed: Executing kexec image on cpu0"):
        assert crashes.of_xen(Xen(), reason, [], [], None) is None  # type: ignore[arg-type]
