"""Reports of synthetic dumps."""

import copy

import pytest

from xenkdump_fast import report, session
from xenkdump_fast.report.model import Content
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="session")
def modern(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("report") / "modern", "modern")


@pytest.fixture(scope="session")
def _gathered(modern: SyntheticDump) -> Content:
    with session.open(modern.vmcore) as dump:
        return report.content(dump, vmlinux=modern.vmlinux)


@pytest.fixture
def content(_gathered: Content) -> Content:
    """The content of a report of a host; each test may change it."""
    return copy.deepcopy(_gathered)
