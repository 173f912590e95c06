"""How a report gathers its content."""

from collections import Counter
from typing import Any

import pytest

from xenkdump_fast import report, session
from xenkdump_fast.session import own_kernel
from xenkdump_forge import SyntheticDump


def test_each_kernel_is_searched_for_once(
    modern: SyntheticDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature takes the kernel of dom0 as it was opened before."""
    searched: Counter[int] = Counter()
    opened = own_kernel.opened

    def counted(dump: Any, number: int, *others: Any) -> Any:
        searched[number] += 1
        return opened(dump, number, *others)

    monkeypatch.setattr(own_kernel, "opened", counted)
    with session.open(modern.vmcore) as dump:
        content = report.content(dump, vmlinux=modern.vmlinux)
    assert content["died"]["signature"] is not None
    assert searched[0] == 1
    assert set(searched.values()) == {1}
