"""The note XENKDUMP of a damaged or hostile file is ignored."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from xenkdump_fast import export_note
from xenkdump_fast.limits import MAX_EXPORT_NOTE


def read(data: bytes, size: int | None = None) -> export_note.ExportNote | None:
    note: Any = SimpleNamespace(kind="export", data=data, size=len(data) if size is None else size)
    return export_note.read([note])


def facts(**changes: object) -> bytes:
    cpu = {"number": 1, "registers": {"rip": "0x10"}}
    return json.dumps({"source": {"domain": 3}, "cpus": [cpu], **changes}).encode()


def test_read() -> None:
    found = read(facts())
    assert found == (3, [(1, {"rip": 0x10})])
    assert export_note.read([]) is None
    assert read(facts(source={"domain": None})) == (None, [(1, {"rip": 0x10})])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b"{}",
        facts(source=None),
        facts(source={"domain": "0"}),
        facts(cpus=7),
        facts(cpus=[3]),
        facts(cpus=[{"number": -1, "registers": {"rip": "0x1"}}]),
        facts(cpus=[{"number": 1 << 40, "registers": {"rip": "0x1"}}]),
        facts(cpus=[{"number": 0, "registers": {"rip": 1}}]),
        facts(cpus=[{"number": 0, "registers": {"rip": "0x1" + "0" * 16}}]),
        facts(cpus=[{"number": 0, "registers": {"rip": "-1"}}]),
        facts(cpus=[{"number": 0, "registers": []}]),
        facts(cpus=[{"registers": {"rip": "0x1"}}]),
    ],
)
def test_hostile(data: bytes) -> None:
    assert read(data) is None


def test_a_large_note_is_not_read() -> None:
    assert read(facts(), MAX_EXPORT_NOTE + 1) is None
