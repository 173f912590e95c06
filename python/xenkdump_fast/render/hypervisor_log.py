"""``log --hypervisor``: Xen's console as text, and as JSON."""

from typing import Any

from ..output.escape import visible
from ..xen.console import Console


def text(result: Console) -> str:
    """Line by line, as ``xl dmesg`` shows them."""
    return "".join("\t".join(map(visible, line.split("\t"))) + "\n" for line in result.lines)


def json(result: Console) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"found_by": result.how, "overwritten": result.overwritten, "lines": result.lines}
