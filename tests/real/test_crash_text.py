"""``ps``, ``mod`` and ``vtop`` of the real dumps, as crash prints them."""

import re
from collections.abc import Callable

import pytest

from tests import rendering
from xenkdump_fast import AbsentError, Domain
from xenkdump_fast.commands import mod, ps, vtop
from xenkdump_fast.linux import pids, tasklist

pytestmark = pytest.mark.real

TYPED = ["xen417-dom0", "xen417-three-domains", "bare-x86_64", "bare-i386-pae"]
BARE = ["bare-x86_64", "bare-i386-pae", "bare-i386"]
Open = Callable[[str], Domain]
Crash = Callable[[str], str]


def table(text: str) -> str:
    """The table at the start of a file."""
    return text.partition("\nPID:")[0]


@pytest.mark.parametrize("name", TYPED)
def test_ps(name: str, domain: Open, crash: Crash) -> None:
    expected = table(crash(f"{name}/crash/ps.txt")).rstrip("\n").split("\n")
    assert rendering.text(ps.run(domain(name))).splitlines() == expected


def test_ps_of_one_task(domain: Open) -> None:
    found = [
        [
            process.task.comm
            for process in ps.run(domain("xen417-dom0"), ps.Options([name])).processes
        ]
        for name in ("1", "ffff888004e00000", "kthreadd")
    ]
    assert found == [["init"], ["init"], ["kthreadd"]]


def test_ps_of_no_task(domain: Open) -> None:
    with pytest.raises(AbsentError, match="no task nobody"):
        ps.run(domain("xen417-dom0"), ps.Options(["nobody"]))


@pytest.mark.parametrize("name", TYPED)
def test_mod(name: str, domain: Open, crash: Crash) -> None:
    expected = crash(f"{name}/crash/mod.txt").splitlines()
    found = rendering.text(mod.run(domain(name))).splitlines()
    assert found == expected[: len(found)]
    assert not any("(not loaded)" in line for line in expected[len(found) :])


@pytest.mark.parametrize("name", BARE)
def test_vtop(name: str, domain: Open, crash: Crash) -> None:
    walks = re.split(r"(?m)^(?=VIRTUAL)", crash(f"{name}/crash/vtop.txt"))[1:]
    assert len(walks) >= 5
    for walk in walks:
        expected = re.split(r"(?m)^ *PAGE +PHYSICAL +MAPPING", walk)[0].rstrip("\n")
        address = expected.split("\n")[1].split()[0]
        found = rendering.text(vtop.run(domain(name), vtop.Options([address])))
        assert found.rstrip("\n") == expected


def test_vtop_under_xen_gives_both_addresses(domain: Open) -> None:
    dom0 = domain("xen417-dom0")
    (found,) = vtop.run(dom0, vtop.Options(["linux_banner"])).translations
    assert found.mapping is not None
    assert found.physical is not None
    assert found.mapping.machine != found.physical
    assert dom0.physical.read(found.physical, 14) == b"Linux version "
    assert dom0.dump.machine.read(found.mapping.machine, 14) == b"Linux version "


@pytest.mark.parametrize("wanted", ["no_such_symbol", "1000", "1ffffffffffffffff"])
def test_vtop_of_unmapped_addresses(wanted: str, domain: Open) -> None:
    try:
        failure = vtop.run(domain("xen417-dom0"), vtop.Options([wanted])).failure
    except AbsentError as error:
        failure = str(error)
    assert failure is not None
    assert wanted in failure


@pytest.mark.parametrize("name", TYPED)
def test_the_table_of_pids_has_every_task_of_the_list(name: str, domain: Open) -> None:
    kernel = domain(name).kernel
    before = kernel.warnings
    numbered = set(pids.tasks(kernel))
    listed = set(tasklist.addresses(kernel)) - {kernel.symbol("init_task")}
    assert numbered == listed
    assert kernel.warnings == before
