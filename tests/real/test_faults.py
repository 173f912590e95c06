"""The short form of ``faults.py``: some faults in a real dump, and no finding."""

from collections.abc import Callable
from unittest import mock

import pytest

from xenkdump_fast.commands import notes

from . import faults
from .faults import work


@pytest.mark.parametrize(
    ("vmcore", "vmlinux"),
    [
        ("xen417-dom0/vmcore", "vmlinux-6.1.0-56-amd64"),
        ("bare-x86_64/vmcore", "vmlinux-6.1.0-56-amd64"),
        ("bare-i386/vmcore", "vmlinux-6.1.0-50-686"),
    ],
)
def test_faults(vmcore: str, vmlinux: str, dump_file: Callable[[str], str]) -> None:
    tally = work(dump_file(vmcore), dump_file(vmlinux), range(900_000, 900_010), combined=2)
    assert tally.outcomes.total() == 10 * len(faults.COMMANDS)
    assert not [outcome for outcome in tally.outcomes if "finding" in outcome]


def memory_hog(*_: object) -> None:
    bytearray(faults.MEMORY)


def endless(*_: object) -> None:
    while True:
        pass


def crash(*_: object) -> None:
    raise IndexError("oops")


@pytest.mark.parametrize(
    ("command", "finding"),
    [(memory_hog, "MemoryError"), (endless, "SIGPROF"), (crash, "IndexError at test_faults.py")],
)
def test_faults_are_detected(
    command: Callable[..., None],
    finding: str,
    dump_file: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "COMMANDS", ("sys", "notes"))
    files = dump_file("vmlinux-6.1.0-56-amd64"), dump_file("xen417-dom0/vmcore")
    with faults.warm(*files), mock.patch.object(notes, "run", command):
        monkeypatch.setattr(faults, "SECONDS", 0.5)
        intact, damaged = faults.run_in_child(*files)
    assert intact.result == "status 0"
    assert damaged.command == "notes"
    assert damaged.result.startswith("finding: ")
    assert finding in damaged.result
