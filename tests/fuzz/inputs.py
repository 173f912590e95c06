"""Decoding of a fuzz input into numbers and memory."""

from collections.abc import Sequence

PAGE = 4096


class Input:
    """Consumes numbers and pieces from the front. After the end, zeros and empty pieces."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        taken = self.data[self.at : self.at + size]
        self.at += len(taken)
        return taken

    def number(self, size: int) -> int:
        """An unsigned number."""
        return int.from_bytes(self.take(size), "little")

    def piece(self) -> bytes:
        """A byte string with a 16-bit length prefix."""
        return self.take(self.number(2))

    def pages(self, most: int) -> list[bytes]:
        """The remaining pieces as pages, padded with zeros. An empty piece is an absent page."""
        found: list[bytes] = []
        while self.at < len(self.data) and len(found) < most:
            piece = self.piece()[:PAGE]
            found.append(piece.ljust(PAGE, b"\0") if piece else b"")
        return found


def pieces(parts: Sequence[bytes]) -> bytes:
    """The encoding that ``Input.piece`` decodes."""
    return b"".join(len(part).to_bytes(2, "little") + part for part in parts)


def trimmed(page: bytes | bytearray) -> bytes:
    """A page as a piece: without trailing zeros, but never empty."""
    return bytes(page).rstrip(b"\0") or b"\0"
