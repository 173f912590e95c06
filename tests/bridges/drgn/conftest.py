"""Programs of drgn, which these tests need."""

from typing import TYPE_CHECKING

import pytest

import xenkdump_fast as xk
from xenkdump_forge import SyntheticDump, write_dump

pytest.importorskip("drgn", reason="drgn is not installed: pip install 'xenkdump_fast[drgn]'")

if TYPE_CHECKING:
    from drgn import Program


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("drgn") / "dump", "modern")


@pytest.fixture(scope="session")
def domain(synthetic: SyntheticDump) -> xk.Domain:
    return xk.open(synthetic.vmcore).domain(0, synthetic.vmlinux)


@pytest.fixture(scope="session")
def program(domain: xk.Domain) -> "Program":
    return xk.drgn_program(domain)
