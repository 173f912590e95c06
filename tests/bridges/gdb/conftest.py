"""Synthetic dumps, and clients of a server in a thread of the test."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import xenkdump_fast as xk
import xenkdump_forge
from xenkdump_fast.bridges.gdb import server
from xenkdump_fast.commands import gdb_server

from .client import Client

Connect = Callable[..., Client]


@pytest.fixture(scope="package")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a synthetic dump."""
    made: dict[str, Path] = {}

    def directory(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("gdb") / kind
            xenkdump_forge.write_dump(made[kind], kind)
        return made[kind]

    return directory


@pytest.fixture
def domain(sample: Callable[[str], Path]) -> Callable[[str], xk.Domain]:
    """dom0 of a synthetic dump."""

    def opened(kind: str) -> xk.Domain:
        directory = sample(kind)
        return xk.open(directory / "vmcore").domain(0, directory / "vmlinux")

    return opened


@pytest.fixture
def connect() -> Iterator[Connect]:
    """``connect(domain, tasks=True)``: a client of a session."""
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def connected(domain: xk.Domain, **options: bool) -> Client:
        service = gdb_server.run(domain, gdb_server.Options(port=0, **options))
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        session = service.session()

        def serve() -> None:
            with theirs:
                server.serve(session, lambda: theirs.recv(1 << 16), theirs.sendall)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        ends.append(ours)
        return Client(lambda: ours.recv(1 << 16), ours.sendall)

    yield connected
    for end in ends:
        end.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
