"""``net`` against drgn, crash, and the structs of sockets."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_fast.cli import main
from xenkdump_fast.commands import net
from xenkdump_fast.linux import namespaces

from .. import rendering
from .reference_lines import MORE, by_crash, by_drgn, every_crash, every_domain, fields, opened

pytestmark = pytest.mark.real


def lines(found: net.Net) -> list[list[str]]:
    """The fields of the text."""
    return fields(list(found.text()))


def without_peers(found: list[list[str]]) -> list[list[str]]:
    """As drgn and crash print it: of IPv4 the other end, of IPv6 the own address."""
    shown = []
    for line in found:
        text = re.sub(r"[\d.]+ peer ([\d.]+)", r"\1", " ".join(line))
        shown.append(re.sub(r" peer [\da-f:]+", "", text).split())
    return shown


@every_domain
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    assert without_peers(lines(net.run(domain))) == by_drgn(domain, "net")
    assert lines(net.run(domain, net.Options(arp=True))) == by_drgn(domain, "net -a")
    whole: Any = rendering.json(net.run(domain))
    assert "lo" in {one["name"] for one in whole["devices"]}
    assert domain.warnings == []


@every_domain
def test_sockets(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    """Each member as drgn reads it."""
    pytest.importorskip("drgn", reason="drgn is not installed")
    from drgn import Object
    from drgn.helpers.linux.fs import for_each_file
    from drgn.helpers.linux.net import SOCKET_I

    from xenkdump_fast import drgn_program

    domain = opened(dump_file, name, number)
    program = drgn_program(domain)
    found: Any = rendering.json(net.run(domain, net.Options(sockets=True, all=True)))
    count = 0
    for task in found["tasks"]:
        expected = {}
        at = int(task["task"], 16)
        if domain.kernel.read(at, "task_struct.files"):
            for fd, file in for_each_file(Object(program, "struct task_struct *", at)):
                if file and file.f_inode.i_sb.s_type.name.string_() == b"sockfs":
                    socket = SOCKET_I(file.f_inode)
                    expected[fd] = (hex(socket.value_()), hex(socket.sk.value_()))
                    (one,) = (one for one in task["sockets"] if one["fd"] == fd)
                    common = socket.sk.member_("__sk_common")
                    if one["source"] is not None:
                        assert one["source"]["port"] == common.skc_num.value_()
                        big = common.skc_dport.value_().to_bytes(2, "little")
                        assert one["destination"]["port"] == int.from_bytes(big, "big")
                    assert (one["source"] is None) == (common.skc_family not in (2, 10))
        assert {one["fd"]: (one["socket"], one["sock"]) for one in task["sockets"]} == expected
        count += len(expected)
    assert count or name in MORE
    assert domain.warnings == []


@every_domain
def test_namespaces(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    pytest.importorskip("drgn", reason="drgn is not installed")
    from drgn import Object
    from drgn.helpers.linux.net import for_each_netdev

    from xenkdump_fast import drgn_program

    domain = opened(dump_file, name, number)
    kernel = domain.kernel
    program = drgn_program(domain)
    seen = {}
    for task in kernel.tasks():
        if not task.idle and not task.exit_state:
            seen[namespaces.of_task(kernel, task.address, "net_ns")] = task.pid
    for address, pid in seen.items():
        found = net.run(domain, net.Options([str(pid)], namespace=True)).devices
        assert found is not None
        devices = for_each_netdev(Object(program, "struct net *", address))
        assert [one.address for one in found] == [device.value_() for device in devices]


@every_crash
def test_as_crash(
    name: str, dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = by_crash(dump_file, tmp_path_factory.getbasetemp(), name)
    domain = opened(dump_file, name, 0)
    assert without_peers(lines(net.run(domain))) == expected["net"]
    # crash prints nothing if there is no neighbour, and an address of zeros in another way.
    own = lines(net.run(domain, net.Options(arp=True)))[1:]
    theirs = [
        [*line[:3], ":".join(line[3:9]), *line[9:]] if line[3] == "00" else line
        for line in expected["net -a"][1:]
    ]
    assert own == theirs
    by_task: dict[str, list[list[str]]] = {}
    for line in expected["foreach net -s"]:
        if line[0] == "PID:":
            below = by_task.setdefault(line[3], [])
        elif line[0] != "FD":
            below.append(line)
    count = 0
    for task, sockets in net.run(domain, net.Options(sockets=True, all=True)).sockets or ():
        own = lines(net.Net(0, domain.kernel, sockets=[(task, sockets)]))
        assert own[2 if sockets else 1 :] == by_task[f"{task.address:x}"]
        count += len(sockets)
    assert count


def test_structs(dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    vmcore = dump_file("bare-x86_64/vmcore")
    assert main(["net", vmcore, "-S", "nc", "-x"]) == 0
    out, _ = capsys.readouterr()
    assert "\nstruct socket {\n  state = SS_UNCONNECTED,\n  type = 0x1,\n" in out
    assert "\nstruct sock {\n" in out
    assert main(["net", vmcore, "-s", "nc"]) == 0
    out, _ = capsys.readouterr()
    assert "INET6:STREAM 0:0:0:0:0:0:0:0-7777 0:0:0:0:0:0:0:0-0\n" in out
    socket = out.splitlines()[-1].split()[1]
    assert main(["net", vmcore, "-s", "--all", "-R", socket]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--all"], "argument --all: needs -s/--sockets"),
        (["-R", "1"], "argument -R/--match: needs"),
        (["-x"], "needs -S/--structs"),
        (["1"], "a task is only for"),
        (["-n", "1", "2"], "one task is needed"),
        (["-s", "--all", "1"], "not allowed with a pid"),
    ],
)
def test_wrong_arguments(
    words: list[str],
    problem: str,
    dump_file: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["net", dump_file("bare-x86_64/vmcore"), *words]) == 2
    assert problem in capsys.readouterr().err
