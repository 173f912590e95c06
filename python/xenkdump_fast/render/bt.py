"""``bt`` as crash prints it, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.bt import Backtraces
from ..linux.backtrace import Trace
from .escape import visible
from .frames import frame_json, place, registers_json
from .registers import exception_frame


def lines(result: Backtraces) -> Iterator[str]:
    """Task by task, an empty line between them."""
    for i, trace in enumerate(result.traces):
        if i:
            yield ""
        yield from _task(trace, result.word)


def _task(trace: Trace, word: int) -> Iterator[str]:
    task = trace.task
    width = word * 2
    yield (
        f"PID: {task.pid:<7}  TASK: {task.address:0{width}x}  CPU: {task.cpu:<3}  "
        f'COMMAND: "{visible(task.comm)}"'
    )
    number = 0
    for i, frame in enumerate(trace.frames):
        if frame.interrupted:
            if not frame.user:
                guess = "  (guess)" if frame.guess else ""
                yield f"    [exception RIP: {place(frame)}]{guess}"
            elif i == 0:
                yield f"    [user space: {frame.pc:0{width}x}]"
            if frame.registers:
                yield from exception_frame(frame.registers, word)
            continue
        name = frame.label or frame.symbol or "(unknown)"
        module = f" [{visible(frame.module)}]" if frame.module else ""
        guess = "  (guess)" if frame.guess else ""
        found = f"{visible(name)} at {frame.pc:0{width}x}{module}{guess}"
        yield f"{'#' + str(number):>3} [{frame.slot:0{width}x}] {found}"
        number += 1
    if trace.stopped:
        yield f"    ({trace.stopped})"


def json(result: Backtraces) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {"domain": result.domain, "tasks": list(map(_task_json, result.traces))}


def lazy_json(result: Backtraces) -> dict[str, Any]:
    """The same, its list an iterator."""
    return {"domain": result.domain, "tasks": map(_task_json, result.traces)}


def _task_json(trace: Trace) -> dict[str, Any]:
    task = trace.task
    user = next((frame.registers for frame in trace.frames if frame.user), None)
    # Where it stood: its vCPU's registers if it was running, else those it left user space with.
    registers = user if trace.registers is None else trace.registers
    found: dict[str, Any] = {
        "pid": task.pid,
        "task": hex(task.address),
        "cpu": task.cpu,
        "comm": task.comm,
        "running": task.active,
        "frames": [
            frame_json(frame, module=frame.module) for frame in trace.frames if not frame.user
        ],
    }
    if registers is not None:
        found["registers"] = registers_json(registers)
    if user is not None:
        found["user_registers"] = registers_json(user)
    if trace.where is not None:
        found["registers_from"] = trace.where
    if trace.stopped is not None:
        found["why"] = trace.stopped
    return found
