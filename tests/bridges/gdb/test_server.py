"""The commands: a pipe, a port, and how they end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xenkdump_fast import cli

from .client import Client

XKDUMP = [sys.executable, "-m", "xenkdump_fast"]


@contextmanager
def started(directory: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    files = [str(directory / "vmlinux"), str(directory / "vmcore")]
    with subprocess.Popen(
        [*XKDUMP, "gdb-server", *options, *files],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def pipe(process: subprocess.Popen[bytes]) -> Client:
    assert process.stdin is not None
    assert process.stdout is not None
    sink, source = process.stdin.fileno(), process.stdout.fileno()
    return Client(lambda: os.read(source, 1 << 16), lambda data: os.write(sink, data))


def port_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    words = process.stdout.readline().decode().split()
    assert words[:2] == ["listening", "on"]
    host, _, port = words[2].partition(":")
    assert host == "127.0.0.1"
    return int(port)


@contextmanager
def connected(port: int) -> Iterator[Client]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield Client(lambda: connection.recv(1 << 16), connection.sendall)


def test_a_pipe(sample: Callable[[str], Path]) -> None:
    with started(sample("modern")) as process:
        client = pipe(process)
        assert client.ask("?") == b"T05thread:2;"
        # Ctrl-C in gdb's terminal.
        process.send_signal(signal.SIGINT)
        assert client.ask("qC") == b"QC2"
        assert client.ask("D") == b"OK"
        assert process.wait(30) == 0


def test_a_pipe_that_gdb_closes(sample: Callable[[str], Path]) -> None:
    with started(sample("modern")) as process:
        assert pipe(process).ask("qC") == b"QC2"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_port(sample: Callable[[str], Path]) -> None:
    with started(sample("modern"), "--port", "0") as process:
        port = port_of(process)
        with connected(port) as client:
            assert client.ask("QStartNoAckMode") == b"OK"
            client.send(b"$garbage")
        # A session of its own: the next client acknowledges again.
        with connected(port) as client:
            assert client.ask("qC") == b"QC2"
            assert client.others == b"+"
            assert client.ask("D") == b"OK"
            with pytest.raises(EOFError):
                client.packet()
        with connected(port) as client:
            assert client.ask("vKill;1") == b"OK"
        assert process.wait(30) == 0


def test_only_this_machine_can_connect(sample: Callable[[str], Path]) -> None:
    with started(sample("modern"), "--port", "0") as process:
        port = port_of(process)
        # Another address of the loopback interface: the socket is not bound to all addresses.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=30)


def test_a_port_in_use(sample: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    directory = sample("modern")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        files = [str(directory / "vmlinux"), str(directory / "vmcore")]
        assert cli.main(["gdb-server", "--port", port, *files]) == 3
    assert "in use" in capsys.readouterr().err


def test_a_terminal_is_no_pipe(
    sample: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    master, terminal = os.openpty()
    try:
        with os.fdopen(terminal) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            directory = sample("modern")
            files = [str(directory / "vmlinux"), str(directory / "vmcore")]
            assert cli.main(["gdb-server", *files]) == 2
    finally:
        os.close(master)
    assert "target remote | xkdump gdb-server" in capsys.readouterr().err


def test_values_of_port(sample: Callable[[str], Path]) -> None:
    for port in ("65536", "-1", "x", ""):
        with pytest.raises(SystemExit):
            cli.main(["gdb-server", f"--port={port}", "vmcore"])
