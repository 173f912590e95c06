"""``kmem -i`` against drgn and crash."""

from collections.abc import Callable, Iterable

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import kmem
from xenkdump_fast.commands.contract import UsageError

from .rows import by_crash, by_drgn, words

pytestmark = pytest.mark.real

DOMAINS = [
    ("xen417-dom0", 0),
    ("xen417-three-domains", 0),
    ("xen417-three-domains", 1),
    ("xen420-pv-pvh", 0),
    ("xen420-pv-pvh", 2),
    ("bare-x86_64", 0),
    ("linux73-bare", 0),
]


def pages(rows: Iterable[list[str]]) -> dict[str, int]:
    """The pages of each row by its name."""
    found = {}
    for row in rows:
        count = next((i for i, word in enumerate(row) if word.isdecimal()), None)
        if count is not None:
            found[" ".join(row[:count])] = int(row[count])
    return found


@pytest.mark.parametrize(("name", "number"), DOMAINS)
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)
    shown = pages(words(kmem.run(domain, kmem.Options(info=True)).text()))
    expected = pages(by_drgn(domain, "kmem -i"))
    # drgn leaves out the counters of CPUs that panic() has stopped.
    committed, summed = expected.pop("COMMITTED"), shown.pop("COMMITTED")
    assert len(shown) == 12
    assert shown == expected
    assert committed // 2 <= summed <= 2 * committed
    assert not domain.warnings


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("bare-x86_64", "6.1.0-56-amd64"),
        ("xen417-three-domains", "6.1.0-56-amd64"),
        ("xen420-pv-pvh", "6.12.117"),
    ],
)
def test_as_crash(name: str, release: str, dump_file: Callable[[str], str]) -> None:
    vmcore = dump_file(f"{name}/vmcore")
    domain = xk.open(vmcore).domain(0)
    shown = words(kmem.run(domain, kmem.Options(info=True)).text())
    expected = by_crash(vmcore, release, ["kmem -i"])["kmem -i"]
    # crash leaves out the counters of all CPUs.
    assert [row for row in shown if row[0] != "COMMITTED"] == [
        row for row in expected if row[0] != "COMMITTED"
    ]


def test_arguments(dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file("bare-x86_64/vmcore")).domain(0)
    assert isinstance(kmem.run(domain, kmem.Options(["-i"])), kmem.Usage)
    with pytest.raises(UsageError, match="-i for the usage of memory"):
        kmem.run(domain)
    with pytest.raises(UsageError, match="not allowed"):
        kmem.run(domain, kmem.Options(["-s"], info=True))
