"""``ps`` as crash prints it, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.ps import Process, Processes
from .escape import visible


def lines(result: Processes) -> Iterator[str]:
    """A heading, then task by task."""
    width = result.word * 2
    yield f"      PID    PPID  CPU {'TASK':^{width}}  ST  %MEM      VSZ      RSS  COMM"
    for process in result.processes:
        yield _line(process, width)


def _line(process: Process, width: int) -> str:
    task = process.task
    comm = visible(task.comm)
    ppid = "?" if process.ppid is None else process.ppid
    return (
        f"{'>' if task.active else ' '} {task.pid:>7} {ppid:>7} {task.cpu:>3}  "
        f"{task.address:0{width}x} {process.state:>3}  {process.percent:>4.1f} "
        f"{process.vsz // 1024:>8} {process.rss // 1024:>8}  "
        f"{f'[{comm}]' if process.kernel_thread else comm}"
    )


def json(result: Processes) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {
        "domain": result.domain,
        "tasks": [_process_json(process) for process in result.processes],
    }


def _process_json(process: Process) -> dict[str, Any]:
    task = process.task
    return {
        "pid": task.pid,
        "tgid": task.tgid,
        "ppid": process.ppid,
        "task": hex(task.address),
        "cpu": task.cpu,
        "comm": task.comm,
        "state": process.state,
        "running": task.active,
        "kernel_thread": process.kernel_thread,
        "vsz": process.vsz,
        "rss": process.rss,
        "percent_of_memory": round(process.percent, 3),
    }
