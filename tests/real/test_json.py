"""Validates the JSON of real dumps, which have fields that synthetic ones lack."""

import json
from collections.abc import Callable

import pytest
from jsonschema import Draft202012Validator

from tests.tools.test_json_schema import SCHEMA, closed
from xenkdump_fast import cli

HOST = "xen417-mixed-pcpus/vmcore"
X86_64, XEN_SYMS = "vmlinux-6.1.0-56-amd64", "xen417-mixed-pcpus/xen-syms"


@pytest.mark.parametrize(
    "command",
    [
        ("bt", "--all", X86_64, HOST),
        ("log", X86_64, HOST),
        ("mod", X86_64, HOST),
        ("notes", HOST),
        ("domains", "--all", HOST),
        ("vcpus", "--all", "--vmlinux", X86_64, HOST),
        ("bt", "--hypervisor", XEN_SYMS, HOST),
        ("log", "--hypervisor", XEN_SYMS, HOST),
        ("sys", "--hypervisor", XEN_SYMS, HOST),
        ("mod", "vmlinux-6.1.0-50-686", "bare-i386/vmcore"),
        ("notes", "bare-i386/vmcore"),
        ("notes", "xen417-three-domains/domu1.core"),
        ("domains", "xen417-three-domains/domu1.core"),
        ("vcpus", "xen417-three-domains/domu1.core"),
    ],
    ids=" ".join,
)
def test_command(
    command: tuple[str, ...], dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    files = (X86_64, XEN_SYMS, "vmlinux-6.1.0-50-686")
    words = [
        dump_file(word) if word in files or word.endswith(("vmcore", ".core")) else word
        for word in command
    ]
    assert cli.main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    validator = Draft202012Validator(closed(SCHEMA))
    assert [f"{found.json_path}: {found.message}" for found in validator.iter_errors(printed)] == []
