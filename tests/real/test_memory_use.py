"""``kmem -i`` against drgn and crash."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import kmem
from xenkdump_fast.commands.contract import UsageError

from .reference_lines import by_crash, by_drgn, every_kernel, every_kernel_of_crash, fields

pytestmark = pytest.mark.real


def pages(rows: Iterable[list[str]]) -> dict[str, int]:
    """The pages of each row by its name."""
    found = {}
    for row in rows:
        count = next((i for i, word in enumerate(row) if word.isdecimal()), None)
        if count is not None:
            found[" ".join(row[:count])] = int(row[count])
    return found


@every_kernel
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(number)
    shown = pages(fields(kmem.run(domain, kmem.Options(info=True)).text()))
    expected = pages(by_drgn(domain, "kmem -i"))
    # drgn leaves out the counters of CPUs that panic() has stopped.
    committed, summed = expected.pop("COMMITTED"), shown.pop("COMMITTED")
    assert len(shown) == 12
    assert shown == expected
    assert committed // 2 <= summed <= 2 * committed
    assert not domain.warnings


@every_kernel_of_crash
def test_as_crash(name: str, dump_file: Callable[[str], str], tmp_path: Path) -> None:
    vmcore = dump_file(f"{name}/vmcore")
    domain = xk.open(vmcore).domain(0)
    shown = fields(kmem.run(domain, kmem.Options(info=True)).text())
    expected = by_crash(dump_file, tmp_path, name, ["kmem -i"])["kmem -i"]
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
