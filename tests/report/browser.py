"""A headless Chromium, driven over its debugging pipe: without a library, and without a port."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
#: Bytes that are read from the pipe at once.
PIECE = 1 << 16


def executable() -> str | None:
    """Chromium's path: in ``XKDUMP_CHROMIUM``, else by one of its names."""
    given = os.environ.get("XKDUMP_CHROMIUM")
    return given or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._left = b""
        self._number = 0
        self._session: str | None = None
        #: Errors and warnings of the console, and requests that the policy refused.
        self.complaints: list[str] = []
        #: The addresses of everything that was requested.
        self.requested: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of a call."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                assert "error" not in found, (method, found["error"])
                result: dict[str, Any] = found["result"]
                return result

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            data = os.read(self._back, PIECE)
            assert data, "the browser has ended"
            self._left += data
        text, _, self._left = self._left.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        self._note(found)
        return found

    def _note(self, message: dict[str, Any]) -> None:
        found = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(found["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if found["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(found["args"]))
            case "Log.entryAdded" if found["entry"]["level"] in ("error", "warning"):
                self.complaints.append(found["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requested.append(found["request"]["url"])

    def open(self, file: Path, width: int, *, dark: bool = False) -> None:
        """Opens a file in a window of this width, and waits until it is loaded."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=file.as_uri())
        while self.value("document.readyState") != "complete" or not self.value(
            "location.protocol === 'file:'"
        ):
            pass

    def value(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

    def screenshot(self, file: Path) -> None:
        """Writes a picture of the whole page, up to 6000 pixels of it."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000)}
        found = self.call(
            "Page.captureScreenshot", clip=clip | {"scale": 1}, captureBeyondViewport=True
        )
        file.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        found = self.call("Page.printToPDF", printBackground=True)
        return base64.b64decode(found["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a new browser; the test is skipped if there is none."""
    path = executable()
    if path is None:
        pytest.skip("no Chromium is installed (XKDUMP_CHROMIUM names one)")
    read_to, to = os.pipe()
    back, write_back = os.pipe()
    # In the browser, descriptor 3 is what it reads and 4 what it writes.
    shell = 'exec "$0" "$@" 3<&"$READ" 4>&"$WRITE"'
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
    ]
    process = subprocess.Popen(
        ["/bin/bash", "-c", shell, path, *options],
        env={**os.environ, "READ": str(read_to), "WRITE": str(write_back)},
        pass_fds=(read_to, write_back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_to)
    os.close(write_back)
    try:
        yield Page(to, back)
    finally:
        os.close(to)
        os.close(back)
        process.terminate()
        process.wait()
