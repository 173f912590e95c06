"""``--redact``: what is left out, and what stays."""

import copy
import json

import pytest

from xenkdump_fast.report import redaction
from xenkdump_fast.report.model import Content, LogLine


def line(text: str) -> LogLine:
    return {"time_ns": 1, "level": 6, "text": text}


def messages(content: Content, *texts: str) -> list[str]:
    """These messages, redacted."""
    kernel = content["domains"][0]["kernel"]
    assert kernel is not None
    assert kernel["log"] is not None
    kernel["log"]["lines"] = [line(text) for text in texts]
    found = redaction.redacted(content)["domains"][0]["kernel"]
    assert found is not None
    assert found["log"] is not None
    return [one["text"] for one in found["log"]["lines"]]


@pytest.mark.parametrize(
    "secret",
    [
        "192.168.17.4",
        "10.0.0.1",
        "fe80::216:3eff:fe12:3456",
        "2001:db8:0:0:1:2:3:4",
        "::1",
        "00:16:3e:12:34:56",
        "29e79a74-6d32-4f61-a799-d6b461945f3f",
    ],
)
def test_addresses(content: Content, secret: str) -> None:
    for text in (f"eth0: {secret} is up", f"({secret})", f"addr={secret}, x", secret):
        (found,) = messages(copy.deepcopy(content), text)
        assert secret not in found
        assert redaction.REDACTED in found


@pytest.mark.parametrize(
    "text",
    [
        "pci 0000:00:1f.2: [8086:2922] type 00 class 0x010601",
        "RIP: 0010:vfs_write+0xc7/0x3f0",
        "Linux version 6.1.0-56-amd64 (6.1.192-2)",
        "ACPI: BIOS 1.16.2-debian-1.16.2-1 04/01/2014",
        "e820: 0x0000000000100000-0x000000001fffffff",
        "std::move",
    ],
)
def test_what_looks_similar(content: Content, text: str) -> None:
    assert messages(content, text) == [text]


def test_host_names(content: Content) -> None:
    content["domains"][0]["nodename"] = "secret-host.example.org"
    texts = (
        "systemd[1]: Set hostname to <secret-host>.",
        "SECRET-HOST.example.org login",
        "not-secret-hosting",
    )
    found = messages(content, *texts)
    assert all("secret-host" not in text.lower() for text in found[:2])
    assert found[2] == texts[2]


def test_command_lines(content: Content) -> None:
    kernel = content["domains"][0]["kernel"]
    assert kernel is not None
    assert content["xen"] is not None
    kernel["command_line"] = "root=/dev/secret ro password=hunter2 quiet"
    content["xen"]["command_line"] = "com1=115200,secret dom0_mem=384M noreboot"
    (text,) = messages(content, "Kernel command line: root=/dev/secret ro password=hunter2 quiet")
    found = redaction.redacted(content)
    for shown in (found["domains"][0]["kernel"], found["xen"]):
        assert shown is not None
        command_line = shown["command_line"]
        assert command_line is not None
        assert "secret" not in command_line
        assert "hunter2" not in command_line
    assert "password=(redacted)" in text
    assert "hunter2" not in text
    assert text.endswith(" quiet")


USER = (
    "RIP: 0033:0x47b7a0",
    "Code: 40 00 48 <48> 3d 00 f0 ff ff",
    "RAX: ffffffffffffffda RBX: 0000000000000001 RCX: 000000000047b7a0",
    "R13: 00000000239063a0 R14: 0000000000000001 R15: 00007ffceae6f990",
)
OWN = ("RIP: 0010:vfs_write+0xc7/0x3f0", "Code: 40 00 <48> 3d", "RAX: ffffffffffffffda")


def test_user_space(content: Content) -> None:
    found = messages(content, *OWN, "Call Trace:", *USER, " </TASK>", *OWN)
    assert found[:3] == list(OWN)
    assert found[-3:] == list(OWN)
    for text in found[5:8]:
        assert "239063a0" not in text
        assert "3d 00" not in text
    assert all("47b7a0" not in text for text in found[5:8])


def test_registers_of_user_space(content: Content) -> None:
    vcpu = content["domains"][0]["vcpus"][0]
    vcpu["registers"] = {"rip": "0x47b7a0", "rax": "0x1122334455"}
    found = redaction.redacted(content)["domains"][0]["vcpus"][0]
    assert found["registers"] == {}


def test_nothing_of_the_host_remains(content: Content) -> None:
    name = content["domains"][0]["nodename"]
    path = content["file"]["path"]
    assert name
    whole = json.dumps(redaction.redacted(copy.deepcopy(content)))
    assert name not in whole
    assert path not in whole
