"""A client of gdb's remote serial protocol, written from its description alone."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable


class Client:
    """Sends packets and receives answers."""

    def __init__(self, receive: Callable[[], bytes], send: Callable[[bytes], object]) -> None:
        self._receive = receive
        self.send = send
        self._waiting = b""
        self._description: ET.Element | None = None
        #: What arrived besides packets: acknowledgements.
        self.others = b""

    def packet(self) -> bytes:
        """The data of the next packet; EOFError if the server closed the connection."""
        while not (found := re.search(rb"\$([^#]*)#([0-9a-f]{2})", self._waiting)):
            received = self._receive()
            if not received:
                raise EOFError
            self._waiting += received
        self.others += self._waiting[: found.start()]
        self._waiting = self._waiting[found.end() :]
        assert sum(found[1]) & 0xFF == int(found[2], 16)
        return re.sub(rb"\}(.)", lambda escape: bytes((escape[1][0] ^ 0x20,)), found[1], flags=re.S)

    def ask(self, request: str) -> bytes:
        """The answer to a request."""
        self.send(b"$%b#%02x" % (request.encode(), sum(request.encode()) & 0xFF))
        return self.packet()

    def document(self, what: str, size: int = 300) -> ET.Element:
        """An XML document, read in parts."""
        text = b""
        while True:
            answer = self.ask(f"qXfer:{what}:{len(text):x},{size:x}")
            text += answer[1:]
            if answer[:1] == b"l":
                return ET.fromstring(text)
            assert answer[:1] == b"m"
            assert len(answer) > 1

    def monitor(self, command: str) -> str:
        """The output of a command."""
        answer = self.ask(f"qRcmd,{command.encode().hex()}")
        text = b""
        while answer != b"OK":
            assert answer[:1] == b"O", answer
            text += bytes.fromhex(answer[1:].decode())
            answer = self.packet()
        return text.decode()

    def registers(self) -> dict[str, int | None]:
        """The registers of the selected thread, by the target description."""
        if self._description is None:
            self._description = self.document("features:read:target.xml")
        data = self.ask("g").decode()
        found: dict[str, int | None] = {}
        for register in self._description.iter("reg"):
            digits = int(register.attrib["bitsize"]) // 4
            value, data = data[:digits], data[digits:]
            known = None if "x" in value else int.from_bytes(bytes.fromhex(value), "little")
            found[register.attrib["name"]] = known
        assert data == ""
        return found
