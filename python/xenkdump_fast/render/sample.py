"""``sample``: what was written, and what to try on it."""

from collections.abc import Iterator
from typing import Any

from ..commands.sample import Written


def lines(result: Written) -> Iterator[str]:
    """The files, then a command."""
    made = result.sample
    yield from map(str, (made.vmlinux, made.vmcore, made.directory / "plan.json"))
    yield f"Try: xkdump bt -a {made.vmlinux} {made.vmcore}"


def json(result: Written) -> dict[str, Any]:
    """The files' paths."""
    made = result.sample
    return {
        "kind": result.kind,
        "vmlinux": str(made.vmlinux),
        "vmcore": str(made.vmcore),
        "plan": str(made.directory / "plan.json"),
    }
