"""The JSON of every command agrees with docs/json.schema.json, and the schema with docs/json.md."""

import copy
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tools.json_schema import schema

from xenkdump_fast import cli
from xenkdump_forge import write_dump

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "json.schema.json").read_text())
KINDS = ("2006", "32on64", "modern")
COMMANDS = (
    "sys {vmlinux} {vmcore}",
    "bt {vmlinux} {vmcore}",
    "bt -a {vmlinux} {vmcore}",
    "bt --all {vmlinux} {vmcore}",
    "bt --all -l {vmlinux} {vmcore}",
    "bt --all --group {vmlinux} {vmcore}",
    "bt --all --unwind scan {vmlinux} {vmcore}",
    "ps {vmlinux} {vmcore}",
    "log {vmlinux} {vmcore}",
    "cmdline {vmlinux} {vmcore}",
    "mod {vmlinux} {vmcore}",
    "vtop {vmlinux} {vmcore} linux_banner 0x10",
    "rd {vmlinux} {vmcore} linux_banner 4",
    "rd -a {vmlinux} {vmcore} linux_banner",
    "rd -s {vmlinux} {vmcore} init_task 8",
    "sym {vmlinux} {vmcore} schedule linux_banner",
    "sym -q sched {vmlinux} {vmcore}",
    "dis {vmlinux} {vmcore} schedule",
    "dis -l {vmlinux} {vmcore} schedule",
    "search {vmlinux} {vmcore} init_task",
    "search -t {vmlinux} {vmcore} Linux",
    "struct {vmlinux} {vmcore} task_struct",
    "struct {vmlinux} {vmcore} task_struct.pid,comm init_task",
    "struct -o {vmlinux} {vmcore} task_struct init_task",
    "union {vmlinux} {vmcore} thread_union",
    "task {vmlinux} {vmcore} 1",
    "task -R pid,comm {vmlinux} {vmcore} 1",
    "whatis {vmlinux} {vmcore} task_struct",
    "p {vmlinux} {vmcore} init_task.pid",
    "cmdline {vmlinux} {vmcore} --all",
    "files {vmlinux} {vmcore} --all",
    "vm {vmlinux} {vmcore} --all",
    "runq {vmlinux} {vmcore}",
    "irq {vmlinux} {vmcore}",
    "irq {vmlinux} {vmcore} -s",
    "timer {vmlinux} {vmcore}",
    "timer {vmlinux} {vmcore} -r",
    "kmem {vmlinux} {vmcore} -i",
    "runq {vmlinux} {vmcore} -t",
    "mount {vmlinux} {vmcore}",
    "net {vmlinux} {vmcore}",
    "net -a {vmlinux} {vmcore}",
    "net -s --all {vmlinux} {vmcore}",
    "ipcs -M -s -q {vmlinux} {vmcore}",
    "dev {vmlinux} {vmcore}",
    "dev -d {vmlinux} {vmcore}",
    "dev -p {vmlinux} {vmcore}",
    "dev -i {vmlinux} {vmcore}",
    "swap {vmlinux} {vmcore}",
    "list {vmlinux} {vmcore} -E task_struct.tasks init_task -s task_struct.pid",
    "tree {vmlinux} {vmcore} some_tree",
    "waits {vmlinux} {vmcore}",
    "check {vmlinux} {vmcore}",
    "signature {vmlinux} {vmcore}",
    "triage {vmcore} -o {folder}-triage -j 1",
    "notes {vmcore}",
    "domains {vmcore}",
    "domains --all {vmcore}",
    "domains {vmcore} 0",
    "pcpus {vmcore}",
    "sched {vmcore}",
    "runq --hypervisor {vmcore}",
    "report {vmlinux} {vmcore}",
    "report --redact {vmcore}",
    "evtchn {vmcore}",
    "grants {vmcore}",
    "vcpus {vmcore}",
    "vcpus --all --vmlinux {vmlinux} {vmcore}",
    "bt --hypervisor {vmcore}",
    "log --hypervisor {vmcore}",
    "sys --hypervisor {vmcore}",
    "bt -a {vmcore} --domain all",
    "log {vmlinux} {vmcore} --domain all",
    "isf {vmlinux} {vmcore} -o {folder}.json --overwrite",
    "export {vmlinux} {vmcore} -o {folder}-export",
    "export --hypervisor {vmcore} -o {folder}-xen",
    "sample {folder}",
    "completion bash",
)

#: Whether the extra [fleet] is installed.
HAS_FLEET = all(find_spec(package) is not None for package in ("pyarrow", "jinja2"))


def closed(schema: Any) -> Any:
    """The schema with all objects closed: fields that it does not describe are errors."""
    schema = copy.deepcopy(schema)

    def close(part: Any) -> None:
        if isinstance(part, dict):
            if "properties" in part:
                part["unevaluatedProperties"] = False
            for inner in part.values():
                close(inner)
        elif isinstance(part, list):
            for inner in part:
                close(inner)

    whole = {case["then"]["$ref"].removeprefix("#/$defs/") for case in schema["allOf"]}
    for name, definition in schema["$defs"].items():
        if name in whole:
            # A command's own members are beside the common ones: the object is closed as a whole.
            for inner in definition["properties"].values():
                close(inner)
        else:
            close(definition)
    schema["unevaluatedProperties"] = False
    return schema


@pytest.mark.parametrize("kind", KINDS)
def test_every_command(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_dump(tmp_path / "dump", kind)
    validator = Draft202012Validator(closed(SCHEMA))
    seen = set()
    for command in COMMANDS:
        if command.startswith("triage ") and not HAS_FLEET:
            continue
        words = command.format(
            vmlinux=made.vmlinux, vmcore=made.vmcore, folder=tmp_path / "second"
        ).split()
        status = cli.main([*words, "--json"])
        printed = json.loads(capsys.readouterr().out)
        errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(printed)]
        assert errors == [], command
        if status != 0:
            # Data of Xen that synthetic dumps lack, or an address that is not mapped.
            assert (status, printed.get("status", 1)) == (1, 1), command
            assert ("failure" in printed) != ("error" in printed), command
        if "error" in printed:
            continue
        seen.add(printed["command"])
    assert {"sys", "bt", "ps", "log", "mod", "vtop", "check", "notes", "sample"} <= seen
    if kind == "modern":
        assert {"domains", "vcpus", "pcpus"} <= seen


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_dump(tmp_path / "dump", "modern")
    files = [str(made.vmlinux), str(made.vmcore)]
    validator = Draft202012Validator(closed(SCHEMA))
    for status, arguments in (
        (1, ["bt", *files, "99999"]),
        (2, ["bt", "-a", *files, "1"]),
        (3, ["bt", files[0], "/nonexistent"]),
        (3, ["notes", files[0] + "x"]),
    ):
        assert cli.main([*arguments, "--json"]) == status
        found = capsys.readouterr()
        printed = json.loads(found.out)
        assert list(validator.iter_errors(printed)) == []
        assert printed["status"] == status
        assert f"xkdump: {printed['error']}\n" in found.err
    assert cli.main(["ps", *files, "1", "99999", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert list(validator.iter_errors(printed)) == []
    assert [task["pid"] for task in printed["tasks"]] == [1]
    assert printed["failure"].endswith("has no task 99999")


def test_the_schema_itself() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert not Draft202012Validator(SCHEMA).is_valid({"schema": 1, "command": "bt", "dump": "x"})


def names(part: Any) -> set[str]:
    """The fields that a part of the schema describes."""
    if isinstance(part, list):
        return {name for inner in part for name in names(inner)}
    if not isinstance(part, dict):
        return set()
    found = set(part.get("properties", ()))
    if "$ref" in part:
        found |= names(SCHEMA["$defs"][part["$ref"].removeprefix("#/$defs/")])
    return found.union(*(names(inner) for inner in part.values()))


@pytest.mark.parametrize("command", SCHEMA["properties"]["command"]["enum"])
def test_every_field_is_described(command: str) -> None:
    text = (DOCS / "json.md").read_text()
    # A section may be about several commands.
    headed = re.findall(r"^## (`.*?`)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    sections = {name: body for names, body in headed for name in re.findall(r"`([^`]*)`", names)}
    base, is_all, _ = command.partition(" --domain all")
    # Some commands print the same of the hypervisor as of a domain.
    own = sections.get(command) or sections[base.removesuffix(" --hypervisor")]
    section = sections["--domain all"] + sections[base] if is_all else own
    if command == "bt --hypervisor":
        section += sections["bt"]  # describes the frames
    described = {word.strip(".[]") for word in re.findall(r"`([^`]+)`", section)}
    reference = next(
        case["then"]["$ref"]
        for case in SCHEMA["allOf"]
        if case["if"]["properties"]["command"]["const"] == command
    )
    assert names(SCHEMA["$defs"][reference.removeprefix("#/$defs/")]) - described == set()


def test_it_is_generated_from_the_types() -> None:
    assert schema() == SCHEMA
