"""Sessions of gdb over a pipe or over a port of the loopback interface."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from . import packets
from .packets import Decoder, Signal
from .session import Session

_LOOPBACK = "127.0.0.1"
#: Bytes that are received at once.
_CHUNK = 1 << 16


def serve_pipe(session: Session, source: int, sink: int) -> None:
    """One session over two file descriptors, until gdb ends it or closes them."""
    # Ctrl-C in gdb is also sent to the processes that it started.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(BrokenPipeError):
            serve(session, lambda: os.read(source, _CHUNK), lambda data: _write(sink, data))
    finally:
        signal.signal(signal.SIGINT, before)


def listen(port: int) -> socket.socket:
    """A socket that gdb on this machine can connect to; port 0 is any free one. OSError."""
    return socket.create_server((_LOOPBACK, port), backlog=1)


def serve_port(listener: socket.socket, session: Callable[[], Session]) -> None:
    """One session after another, until gdb kills what it debugs."""
    while True:
        connection, _ = listener.accept()
        with connection, suppress(ConnectionError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            current = session()
            serve(current, lambda: connection.recv(_CHUNK), connection.sendall)  # noqa: B023
            if current.is_killed:
                return


def _write(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]


def serve(session: Session, receive: Callable[[], bytes], send: Callable[[bytes], None]) -> None:
    """Answers packets until gdb ends the session, or nothing more is received."""
    decoder = Decoder()
    last = b""
    while received := receive():
        previous: bytes | None = None
        for found in decoder.feed(received):
            if found is Signal.RESEND and session.acknowledges:
                send(last)
            elif found is Signal.DAMAGED and session.acknowledges:
                send(b"-")
            if isinstance(found, Signal):
                continue  # nothing runs that Ctrl-C could interrupt
            if session.acknowledges:
                send(b"+")
                if found == previous:
                    # gdb sent its first packet again, before the dump was open.
                    continue
            previous = found
            for data in session.answers(found):
                last = packets.framed(data)
                send(last)
            if session.is_over:
                return
