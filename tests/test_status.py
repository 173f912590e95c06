"""The statuses of batch calls."""

import numpy as np

import xenkdump_fast as xk
from xenkdump_fast._native import STATUS


def test_every_status_of_the_extension_module_has_a_name() -> None:
    assert [status.value for status in xk.Status] == list(range(len(STATUS)))
    names = [status.name.lower().replace("_", " ") for status in xk.Status]
    assert names == [text.lower() for text in STATUS]
    assert str(xk.Status.NO_P2M_PAGE) == "no P2M page"


def test_statuses_compare_with_arrays() -> None:
    status = np.array([0, 6, 0], dtype=np.uint8)
    assert (status == xk.Status.NOT_PRESENT).tolist() == [False, True, False]
