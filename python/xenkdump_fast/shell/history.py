"""The lines of earlier sessions, in a file that only its owner can read."""

import os
import stat
from pathlib import Path

from ..limits import MAX_HISTORY, MAX_HISTORY_SIZE


def path() -> Path:
    """The file of the history: ``$XDG_STATE_HOME/xkdump/history``."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path("~/.local/state").expanduser()
    return base / "xkdump" / "history"


class History:
    """The lines of earlier sessions and of this one.

    Lines are appended when they are entered, so that concurrent sessions keep each other's
    lines. A line that starts with a space is not kept.
    """

    def __init__(self, file: Path | None) -> None:
        """Reads the file, if one is given. What is wrong with it is ``problem``."""
        #: The oldest first.
        self.lines: list[str] = []
        #: Why lines are not kept; None if they are.
        self.problem: str | None = None
        self._file = file
        if file is None:
            return
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._read()
        except OSError as error:
            self._fail(error)

    def _open(self, flags: int) -> int:
        assert self._file is not None
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._file, flags, 0o600)
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
            os.close(descriptor)
            raise PermissionError(0, "not a regular file of this user")
        if stat.S_IMODE(state.st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        return descriptor

    def _read(self) -> None:
        with os.fdopen(self._open(os.O_RDWR | os.O_CREAT | os.O_NONBLOCK), "r+b") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - MAX_HISTORY_SIZE))
            data = stream.read(MAX_HISTORY_SIZE)
            lines = [
                line
                for line in data.decode("utf-8", "replace").split("\n")
                if line and line.isprintable()
            ]
            self.lines = lines[-MAX_HISTORY:]
            if size > MAX_HISTORY_SIZE or len(lines) > 2 * MAX_HISTORY:
                stream.seek(0)
                stream.write("".join(f"{line}\n" for line in self.lines).encode())
                stream.truncate()

    def add(self, line: str) -> None:
        """Keeps a line, unless it repeats the last one or starts with a space."""
        if line.startswith(" ") or not line.strip() or not line.isprintable():
            return
        if self.lines and self.lines[-1] == line:
            return
        self.lines.append(line)
        if self._file is None:
            return
        try:
            descriptor = self._open(os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
            with os.fdopen(descriptor, "ab") as stream:
                stream.write(f"{line}\n".encode("utf-8", "replace"))
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.problem = f"the history is not kept: {self._file}: {error.strerror or error}"
        self._file = None
