"""Frames and registers as JSON has them, of a kernel's stack and of Xen's alike."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .escape import visible

if TYPE_CHECKING:
    from ..linux.backtrace import Frame
    from ..xen.stacks import Frame as XenFrame

    AnyFrame = Frame | XenFrame


def place(frame: "AnyFrame") -> str:
    """Where an exception stopped a function, as crash words it."""
    if frame.symbol is None:
        return f"unknown or invalid address {frame.pc:#x}"
    return f"{visible(frame.symbol)}+{frame.offset}"


def frame_json(frame: "AnyFrame", **own: object) -> dict[str, Any]:
    """What frames of every kind have, then the kind's ``own``, without what is None."""
    found: dict[str, Any] = {
        "pc": hex(frame.pc),
        "sp": hex(frame.sp),
        "symbol": frame.symbol,
        "offset": frame.offset,
        "guess": frame.guess,
        "how": frame.how,
        "interrupted": frame.interrupted,
    }
    found.update((name, value) for name, value in own.items() if value is not None)
    if frame.registers is not None:
        found["registers"] = registers_json(frame.registers)
    return found


def registers_json(registers: Mapping[str, int]) -> dict[str, str]:
    """Values in hex, by the registers' names."""
    return {name: hex(value) for name, value in registers.items()}
