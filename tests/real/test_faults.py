"""The short form of ``faults.py``: some faults in a real dump, and no finding."""

from collections.abc import Callable

from .faults import work


def test_faults(dump_file: Callable[[str], str]) -> None:
    vmcore = dump_file("xen417-dom0/vmcore")
    tally = work(vmcore, dump_file("vmlinux-6.1.0-56-amd64"), range(900_000, 900_030))
    assert tally.outcomes.total() == 30 * 5
    assert not [outcome for outcome in tally.outcomes if "finding" in outcome]
