"""``log --hypervisor``: Xen's console as text, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..hypervisor.console import Console


def lines(result: Console) -> Iterator[str]:
    """Line by line, as ``xl dmesg`` shows them."""
    yield from result.lines


def json(result: Console) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"found_by": result.how, "overwritten": result.overwritten, "lines": result.lines}
