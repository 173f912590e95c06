"""Frames and registers in JSON, of kernel stacks and of Xen's."""

from collections.abc import Mapping

from .._typing import TYPE_CHECKING, NotRequired, TypedDict, cast
from .escape import visible
from .json_types import Count, Hex, Registers

if TYPE_CHECKING:
    from .._native import Frame


def place(frame: "Frame") -> str:
    """Where an exception interrupted a function, in the words of crash."""
    if frame.symbol is None:
        return f"unknown or invalid address {frame.pc:#x}"
    return f"{visible(frame.symbol)}+{frame.offset}"


class FrameJson(TypedDict):
    """A frame of a stack."""

    pc: Hex
    sp: Hex
    symbol: str | None
    offset: Count
    guess: bool
    how: str
    interrupted: bool
    #: Of a kernel's frame that is in a module.
    module: NotRequired[str]
    registers: NotRequired[Registers]
    #: With source lines, if there is one.
    file: NotRequired[str]
    line: NotRequired[Count]


class XenFrameJson(FrameJson):
    """A frame of a Xen stack."""

    guest: bool


def frame_json(frame: "Frame") -> FrameJson:
    """A frame of a kernel's stack."""
    own = {} if frame.module is None else {"module": frame.module}
    return cast(FrameJson, _json(frame, own))


def xen_frame_json(frame: "Frame") -> XenFrameJson:
    """A frame of a Xen stack."""
    return cast(XenFrameJson, _json(frame, {"guest": frame.user}))


def _json(frame: "Frame", own: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {
        "pc": hex(frame.pc),
        "sp": hex(frame.sp),
        "symbol": frame.symbol,
        "offset": frame.offset,
        "guess": frame.guess,
        "how": frame.how,
        "interrupted": frame.interrupted,
        **own,
    }
    if frame.registers is not None:
        found["registers"] = registers_json(frame.registers)
    return found


def registers_json(registers: Mapping[str, int]) -> Registers:
    """Values in hex, by the registers' names."""
    return {name: hex(value) for name, value in registers.items()}
