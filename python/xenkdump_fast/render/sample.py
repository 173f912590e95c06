"""``sample``: what was written, and what to try on it."""

from typing import Any

from ..commands.sample import Written
from ..output.escape import visible


def text(result: Written) -> str:
    """The files, then a command."""
    made = result.sample
    return (
        f"{visible(str(made.vmlinux))}\n"
        f"{visible(str(made.vmcore))}\n"
        f"{visible(str(made.directory / 'plan.json'))}\n"
        f"Try: xkdump bt -a {visible(str(made.vmlinux))} {visible(str(made.vmcore))}\n"
    )


def json(result: Written) -> dict[str, Any]:
    """The files' paths."""
    made = result.sample
    return {
        "kind": result.kind,
        "vmlinux": str(made.vmlinux),
        "vmcore": str(made.vmcore),
        "plan": str(made.directory / "plan.json"),
    }
