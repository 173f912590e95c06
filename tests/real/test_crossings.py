"""How often the commands that list many tasks call from Python into Rust."""

from collections.abc import Callable

import pytest

from ..crossings import crossings
from .conftest import X86_64

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("command", "most"),
    [
        ("ps", 250),
        ("bt --all", 1000),
        ("bt --all --json", 1000),
        ("bt -a", 600),
        ("files --all", 200),
        ("cmdline --all", 400),
        ("vm --all", 480),
        ("dev", 800),
        ("waits", 700),
    ],
)
def test_calls_into_rust(
    command: str,
    most: int,
    dump_file: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of 156 tasks: ps made 4,104 calls, bt --all 5,833, bt -a 694, files --all 399.

    bt -a and waits include the search for registers, cmdline --all four calls for the address space
    of each of 81 processes. In vm --all, the names of the 156 areas of the vDSO are read once. In
    dev, the first two entries of all buckets of a table are read together: few have more.
    """
    files = [dump_file(X86_64), dump_file("xen417-dom0/vmcore")]
    count, out = crossings([*command.split(), *files], capsys)
    assert len(out) > 400
    assert 0 < count < most
