"""Xen's header: version, command line and crash reason."""

from types import SimpleNamespace
from typing import Any

import pytest

from xenkdump_fast.xen import header
from xenkdump_fast.xen.console_ring import Console


@pytest.mark.parametrize("stamp", ["", "[2026-11-16 10:00:00] "])
def test_a_guest_s_command_line_is_not_xen_s(stamp: str) -> None:
    """A guest may print its command line to Xen's console; Xen's line may be overwritten."""
    xen: Any = SimpleNamespace(symbols=None)
    guest = "(d2) [    0.000000] Command line: console=hvc0"
    own = f"(XEN) {stamp}Command line: console=com1 dom0_mem=384M"
    fields = {"overwritten": False, "how": "its text"}
    both = Console(lines=[guest, own], **fields)  # type: ignore[arg-type]
    assert header._command_line(xen, both) == "console=com1 dom0_mem=384M"
    alone = Console(lines=[guest], **fields)  # type: ignore[arg-type]
    assert header._command_line(xen, alone) is None
