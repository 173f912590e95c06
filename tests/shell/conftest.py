"""A synthetic host, and shells on it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xenkdump_fast import arguments, cli
from xenkdump_fast.commands import COMMANDS
from xenkdump_fast.shell.repl import Shell
from xenkdump_fast.shell.session import Session
from xenkdump_forge import SyntheticDump, write_dump

#: Makes a shell from the arguments of ``xkdump shell``.
MakeShell = Callable[..., Shell]


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    """A host with domains 0 and 1, which run the same kernel."""
    return write_dump(tmp_path_factory.mktemp("shell") / "dump", "modern")


def make(*words: str, escapes: bool = False) -> Shell:
    command = COMMANDS["shell"]
    options = arguments.parse(command, arguments.command_module(command), words)
    session = Session(cli.Files(options), options)
    return Shell(session, escapes=escapes, scroll=False)


@pytest.fixture
def shell(host: SyntheticDump) -> Shell:
    return make(str(host.vmlinux), str(host.vmcore))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
