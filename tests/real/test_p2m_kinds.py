"""The pfns of domains by kind, compared with a lookup of each."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast import Status

pytestmark = pytest.mark.real

STATUS = {"frame": Status.OK, "invalid": Status.INVALID, "identity": Status.IDENTITY}


@pytest.mark.parametrize("name", ["xen417-dom0", "xen417-three-domains"])
def test_pfns_by_kind(dump_file: Callable[[str], str], name: str) -> None:
    domain = xk.open(dump_file(f"{name}/vmcore")).domain(0)
    p2m = domain.p2m
    assert p2m is not None
    runs, following = p2m.kinds()
    assert following is None
    assert [first for first, *_ in runs[1:]] == [first + count for first, count, _ in runs[:-1]]
    assert runs[-1][0] + runs[-1][1] == p2m.pages
    counted: Counter[str] = Counter()
    for _, count, kind in runs:
        counted[kind] += count
    status = np.empty(p2m.pages, np.uint8)
    p2m.resolve(np.arange(p2m.pages, dtype=np.uint64), status=status)
    for name_of_kind, value in STATUS.items():
        assert counted[name_of_kind] == (status == value).sum()
    # Pages of the P2M that the dump has also hold entries of other kinds.
    assert counted["frame"] < sum(count for _, count in p2m.spans())
    some, following = p2m.kinds(limit=2)
    assert some == runs[:2]
    assert following == runs[2][0]
