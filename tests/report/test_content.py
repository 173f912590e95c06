"""How a report gathers its content."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from xenkdump_fast import report, session
from xenkdump_fast.session import own_kernel
from xenkdump_forge import SyntheticDump, write_dump


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


def _problems(dump: SyntheticDump, vmlinux: SyntheticDump) -> list[str]:
    with session.open(dump.vmcore) as opened:
        content = report.content(opened, vmlinux=vmlinux.vmlinux)
    return [problem["text"] for problem in content["problems"]]


def test_a_vmlinux_of_another_kernel_is_named(modern: SyntheticDump, tmp_path: Path) -> None:
    other = write_dump(tmp_path / "other", "2006-x86_64")
    unused = f"{Path(other.vmlinux).name} is not the kernel of any domain: it is not used"
    assert unused in _problems(modern, other)
    assert not any("is not the kernel of" in text for text in _problems(modern, modern))
