"""Frames and tasks as plain data."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from ..limits import MAX_REPORT_TEXT
from ..linux import states
from ..output.json_types import Registers
from .model import Frame, Task

if TYPE_CHECKING:
    from .._native import Frame as NativeFrame
    from ..linux.states import States
    from ..linux.tasks import Task as LinuxTask


def short(text: str) -> str:
    """A text from the dump, at most as long as a report has it."""
    return text if len(text) <= MAX_REPORT_TEXT else f"{text[:MAX_REPORT_TEXT]}..."


def frames(found: "Iterable[NativeFrame]", limit: int) -> list[Frame]:
    """Frames of a stack, at most ``limit``."""
    return [
        {
            "pc": hex(frame.pc),
            "symbol": None if frame.symbol is None else short(frame.symbol),
            "offset": frame.offset,
            "module": frame.module,
            "guess": frame.guess,
            "interrupted": frame.interrupted,
            "user": frame.user,
        }
        for frame in islice(found, limit)
    ]


def task(found: "LinuxTask", known: "States") -> Task:
    """A task."""
    return {
        "pid": found.pid,
        "task": hex(found.address),
        "cpu": found.cpu,
        "comm": found.comm,
        "state": states.letters(found, known),
    }


def registers(found: Mapping[str, int] | None) -> Registers:
    """Values in hex, by the registers' names."""
    return {} if found is None else {name: hex(value) for name, value in found.items()}
