"""Runs commands on a synthetic dump."""

import json
from typing import Any

import pytest

from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump


class Run:
    """Runs a command on the files of a dump, and returns what it prints; ``err`` is its stderr."""

    def __init__(self, synthetic: SyntheticDump, captured: pytest.CaptureFixture[bytes]) -> None:
        self._files = (str(synthetic.vmlinux), str(synthetic.vmcore))
        self._captured = captured

    def __call__(self, command: str, *words: str, expected: int = 0) -> str:
        return self.binary(command, *words, expected=expected).decode()

    def binary(self, command: str, *words: str, expected: int = 0) -> bytes:
        status = main([command, *self._files, *words])
        out, err = self._captured.readouterr()
        self.err = err.decode()
        assert status == expected, self.err
        return out

    def json(self, command: str, *words: str, expected: int = 0) -> Any:
        return json.loads(self(command, "--json", *words, expected=expected))
