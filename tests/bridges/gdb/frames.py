"""Runs within gdb: prints the frames of all threads as JSON, without those of inlined functions."""

import json
from typing import Any

import gdb


def frames() -> Any:
    """pc and sp of the selected thread's frames, up to a pc of 0."""
    wide = "x86-64" in gdb.selected_frame().architecture().name()
    found: list[tuple[int, int]] = []
    frame = gdb.newest_frame()
    while frame is not None:
        pc = int(frame.pc())
        if pc == 0:
            return found
        # gdb adds inlined functions, and functions that ended with a call.
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            sp = int(frame.read_register("rsp" if wide else "esp"))
            found.append((pc, sp & (1 << 64 if wide else 1 << 32) - 1))
        frame = frame.older()
    return found


for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread.num):
    thread.switch()
    try:
        result: Any = frames()
    except gdb.error as error:
        result = str(error)
    print("FRAMES", json.dumps((thread.ptid[1], result)))
