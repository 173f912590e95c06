"""The text and the JSON of every command on synthetic dumps, compared with snapshots.

``pytest --snapshot-update`` rewrites them; review the diff before you commit it.
"""

import json
import re
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from xenkdump_fast import cli, commands
from xenkdump_forge import SyntheticDump, write_dump

COMMANDS = {
    "sys": "sys {vmlinux} {vmcore}",
    "bt": "bt {vmlinux} {vmcore}",
    "bt-a": "bt -a {vmlinux} {vmcore}",
    "ps": "ps {vmlinux} {vmcore}",
    "vtop": "vtop {vmlinux} {vmcore} linux_banner",
    "check": "check {vmlinux} {vmcore}",
    "notes": "notes {vmcore}",
    "log": "log {vmlinux} {vmcore}",
    "mod": "mod {vmlinux} {vmcore}",
    "domains": "domains {vmcore}",
    "vcpus": "vcpus {vmcore}",
}
#: The oldest kind and the newest.
KINDS = ("2006", "modern")


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SyntheticDump]:
    folder = tmp_path_factory.mktemp("snapshots")
    return {kind: write_dump(folder / kind, kind) for kind in KINDS}


def run(command: str, made: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> str:
    """Exit status, stdout and stderr in one text, without this run's folder in it."""
    status = cli.main(command.format(vmlinux=made.vmlinux, vmcore=made.vmcore).split())
    found = capsys.readouterr()
    text = f"{found.out}{found.err}exit status {status}\n"
    return text.replace(f"{made.directory}/", "")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
def test_text(
    dumps: dict[str, SyntheticDump],
    kind: str,
    name: str,
    capsys: pytest.CaptureFixture[str],
    snapshot: SnapshotAssertion,
) -> None:
    assert run(COMMANDS[name], dumps[kind], capsys) == snapshot


@pytest.mark.parametrize("name", COMMANDS)
def test_json(
    dumps: dict[str, SyntheticDump],
    name: str,
    capsys: pytest.CaptureFixture[str],
    snapshot: SnapshotAssertion,
) -> None:
    text = run(f"{COMMANDS[name]} --json", dumps["modern"], capsys)
    found = json.loads(text[: text.rindex("}") + 1])
    assert (found["schema"], found["command"], found["dump"]) == (
        1,
        COMMANDS[name].split()[0],
        "vmcore",
    )
    assert shape(found) == snapshot


def shape(value: object) -> object:
    """The structure of the JSON, without values: the text snapshots have those."""
    if isinstance(value, dict):
        return {key: shape(content) for key, content in value.items()}
    if isinstance(value, list):
        kinds = [shape(content) for content in value]
        return [kind for i, kind in enumerate(kinds) if kind not in kinds[:i]]
    if isinstance(value, str):
        return "hex" if re.fullmatch(r"0x[0-9a-f]+", value) else "text"
    return type(value).__name__


def test_every_command_is_in_the_schema_s_description() -> None:
    described = (Path(__file__).parents[1] / "docs" / "json.md").read_text()
    printing = [command.name for command in commands.COMMANDS.values() if not command.interactive]
    headings = " ".join(re.findall(r"^## (.*)$", described, re.MULTILINE))
    assert [name for name in printing if f"`{name}`" not in headings] == []
