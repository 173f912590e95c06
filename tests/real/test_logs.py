"""The logs of the real dumps, line for line as crash prints them."""

from collections.abc import Callable
from typing import Any

import pytest

from tests import rendering
from xenkdump_fast import Domain
from xenkdump_fast.commands import log as command
from xenkdump_fast.linux import panic

pytestmark = pytest.mark.real

NAMES = ["xen417-dom0", "xen417-three-domains", "bare-x86_64", "bare-i386-pae", "bare-i386"]


@pytest.mark.parametrize("name", NAMES)
def test_text_matches_crash(
    name: str, domain: Callable[[str], Domain], crash: Callable[[str], str]
) -> None:
    assert rendering.text(command.run(domain(name))) == crash(f"{name}/crash/log.txt")


@pytest.mark.parametrize("name", ["xen417-dom0", "bare-x86_64"])
def test_number_of_messages(
    name: str, domain: Callable[[str], Domain], truth: Callable[[str], Any]
) -> None:
    lines = list(command.run(domain(name)).lines)
    assert len(lines) == truth(f"{name}/truth.json")["log_lines"]
    assert [line.sequence for line in lines] == list(range(len(lines)))
    assert all(line.level is not None and line.caller is not None for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_message(name: str, domain: Callable[[str], Domain]) -> None:
    message = panic.message(domain(name).kernel)
    assert message == "Kernel panic - not syncing: sysrq triggered crash"
