"""Runs within gdb: callers that gdb cannot find itself, by the server's backtraces.

gdb unwinds by DWARF. That does not describe the assembler code at which the kernel is entered and
switches stacks, or hypercalls; and gdb has no symbols of modules. After
``source unwinder.py`` it takes the callers of these frames from ``xkdump gdb-server``. gdb has to
be built with Python.
"""

from typing import Any

import gdb
from gdb.unwinder import Unwinder, register_unwinder


class FrameId:
    """Identifies a frame for gdb, which takes a stack for corrupt if ``sp`` does not ascend."""

    def __init__(self, sp: int, pc: int) -> None:
        self.sp = gdb.Value(sp)
        self.pc = gdb.Value(pc)


class ServerUnwinder(Unwinder):  # type: ignore[misc]
    """Callers by the server."""

    def __init__(self) -> None:
        super().__init__("xkdump")
        self._connection: Any = None
        #: By thread: the rest of a line of ``monitor callers``, by pc and sp.
        self._threads: dict[int, dict[tuple[int, int], list[str]]] = {}

    def __call__(self, pending: Any) -> Any:
        """What gdb needs to know of a frame; None if it finds that itself."""
        try:
            place = self._place(pending)
        except (gdb.error, ValueError):
            return None  # unavailable
        found = self._frames().get(place)
        if found is None:
            return None
        order, *registers = found
        info = pending.create_unwind_info(FrameId(int(order, 16), place[0]))
        for word in registers:
            name, _, value = word.partition("=")
            try:
                own = pending.read_register(name)
                new = gdb.Value(int(value, 16)).cast(own.type) if value else own
                info.add_saved_register(name, new)
            except (gdb.error, ValueError):
                pass  # unavailable
        return info

    @staticmethod
    def _place(pending: Any) -> tuple[int, int]:
        wide = "x86-64" in pending.architecture().name()
        mask = (1 << (64 if wide else 32)) - 1
        pc, sp = ("rip", "rsp") if wide else ("eip", "esp")
        return int(pending.read_register(pc)) & mask, int(pending.read_register(sp)) & mask

    def _frames(self) -> dict[tuple[int, int], list[str]]:
        thread = gdb.selected_thread()
        connection = gdb.selected_inferior().connection
        if thread is None or connection is None or connection.type != "remote":
            return {}
        if connection is not self._connection:
            self._connection, self._threads = connection, {}
        number = thread.ptid[1]
        if number not in self._threads:
            # RemoteTargetConnection.send_packet() ends gdb 13 here: it selects a frame.
            lines = gdb.execute(f"monitor callers {number}", to_string=True).splitlines()
            words = [line.split() for line in lines if line.startswith("0x")]
            self._threads[number] = {(int(pc, 16), int(sp, 16)): rest for pc, sp, *rest in words}
        return self._threads[number]


register_unwinder(None, ServerUnwinder(), replace=True)
gdb.invalidate_cached_frames()
