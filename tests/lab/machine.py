"""Runs the emulated machine and takes the dumps."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

#: Free bytes that must remain on the disk.
_RESERVE = 8 << 30
_BLOCK = 1 << 16
#: On the console if the host cannot go on.
_FAILURES = ("Panic on CPU", "LAB-FAILED", "Attempted to kill init")


class Machine:
    """A machine in QEMU, without hardware acceleration: nested SVM works there."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self._folder = folder
        self.console = folder / "console.log"
        self._monitor = folder / "monitor"
        for path in (self.console, self._monitor):
            path.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                *("nice", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-display", "none"),
                *("-no-reboot", "-net", "none", "-serial", f"file:{self.console}"),
                *("-qmp", f"unix:{self._monitor},server=on,wait=off"),
                *arguments,
            ]
        )

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._monitor.unlink(missing_ok=True)

    def wait(self, marker: str, seconds: int) -> None:
        """Until the marker is on the serial console."""
        end = time.monotonic() + seconds
        text = ""
        while time.monotonic() < end and self._process.poll() is None:
            text = self.console.read_text(errors="replace") if self.console.exists() else ""
            if marker in text:
                return
            if any(failure in text for failure in _FAILURES):
                break
            time.sleep(0.5)
        raise TimeoutError(f"no {marker!r} on {self.console}; its end:\n{text[-2000:]}")

    def dump(self, target: Path) -> None:
        """Stops the machine, writes its memory and its CPUs' registers, and lets it go on."""
        plain = self._folder / "dump.part"
        free = os.statvfs(self._folder)
        if free.f_bavail * free.f_frsize < _RESERVE:
            raise OSError(f"less than {_RESERVE >> 30} GiB free in {self._folder}")
        with _Monitor(self._monitor) as monitor:
            monitor.execute("stop")
            monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{plain}")
            monitor.execute("cont")
        copy_sparse(plain, target)
        plain.unlink()


class _Monitor:
    """QEMU's monitor protocol."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw")
        self._stream.readline()
        self.execute("qmp_capabilities")

    def __enter__(self) -> "_Monitor":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def execute(self, command: str, **arguments: Any) -> Any:
        json.dump({"execute": command, "arguments": arguments}, self._stream)
        self._stream.write("\n")
        self._stream.flush()
        for line in self._stream:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError(f"{command}: QEMU ended")


def copy_sparse(source: Path, target: Path) -> None:
    """Copies a file, leaving holes where it is zero."""
    zeros = bytes(_BLOCK)
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
            if block == zeros[: len(block)]:
                writer.seek(len(block), os.SEEK_CUR)
            else:
                writer.write(block)
        writer.truncate()
