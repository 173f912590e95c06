"""The short form of ``faults.py``: some faults in a real dump, and no finding."""

from collections.abc import Callable

from .faults import work


def test_faults(dump_file: Callable[[str], str]) -> None:
    vmcore = dump_file("xen417-dom0/vmcore")
    outcomes = work(vmcore, dump_file("vmlinux-6.1.0-56-amd64"), range(900_000, 900_030))
    assert sum(outcomes.values()) == 30 * 5
    assert not [outcome for outcome in outcomes if "finding" in outcome]
