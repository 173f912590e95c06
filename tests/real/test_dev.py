"""``dev`` against drgn and crash."""

from collections.abc import Callable

import pytest

from xenkdump_fast import Domain
from xenkdump_fast.commands import dev
from xenkdump_fast.parsing import number as parsed

from .reference_lines import MORE, by_crash, by_drgn, every_crash, every_domain, fields, opened

pytestmark = pytest.mark.real


def lines(domain: Domain, what: dev.What) -> list[list[str]]:
    """The fields of the text, without the names of modules."""
    found = fields(list(dev.run(domain, dev.Options(what)).text()))
    if what != "numbers":
        return found
    return [[one for one in line if not one.startswith("[")] for line in found]


def symbols_as_addresses(domain: Domain, line: list[str]) -> list[str]:
    """With the address of the operations in place of their name, which may be that of a module."""
    _ = domain.kernel.unwinder
    address = domain.kernel.code.get(line[-1])
    return [*line[:-1], f"{address:x}"] if address is not None else line


@every_domain
def test_numbers(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    own = [symbols_as_addresses(domain, line) for line in lines(domain, "numbers")]
    theirs = [symbols_as_addresses(domain, line) for line in by_drgn(domain, "dev")]
    assert own == theirs
    assert ["1", "mem"] in [line[:2] for line in own]
    assert domain.warnings == []


def test_operations_of_a_module(dump_file: Callable[[str], str]) -> None:
    """Since 6.4 the data of a module is not in the range of its text."""
    domain = opened(dump_file, "linux73-bare", 0)
    found = {line[-1] for line in lines(domain, "numbers")}
    assert {"lo_fops", "virtblk_fops"} <= found
    label = domain.kernel.code.lookup(domain.kernel.code.get("lo_fops") or 0)
    assert label is not None
    assert label.module == "loop"


@every_domain
def test_disks(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    assert lines(domain, "disks") == by_drgn(domain, "dev -d")
    assert lines(domain, "busy") == by_drgn(domain, "dev -D")
    assert domain.warnings == []


@every_domain
def test_buses(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    found = lines(domain, "pci")
    assert found == by_drgn(domain, "dev -p")
    assert domain.warnings == []


@every_domain
def test_ports(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    found = dev.run(domain, dev.Options("resources")).resources
    assert found is not None
    ports = [f"{one.start:04x}-{one.end:04x}" for one in found["ports"]]
    theirs = by_drgn(domain, "dev -i")[1:]
    assert [f"{one.address:x}" for one in found["ports"]] == [line[0] for line in theirs]
    assert ports == [line[1] for line in theirs]
    assert [one.name.split() for one in found["ports"]] == [line[2:] for line in theirs]
    assert "System RAM" in {one.name for one in found["memory"]}
    for one in found["memory"]:
        assert one.start <= one.end
    assert domain.warnings == []


def padded(line: list[str]) -> list[str]:
    """With all digits of vendor and device, of which crash leaves out zeros at the start."""
    if len(line) < 5 or ":" not in line[3]:
        return line
    vendor, _, device = line[3].partition(":")
    return [*line[:3], f"{vendor:0>4}:{device:0>4}", *line[4:]]


@every_crash
def test_as_crash(
    name: str, dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = by_crash(dump_file, tmp_path_factory.getbasetemp(), name)
    domain = opened(dump_file, name, 0)
    assert lines(domain, "pci") == list(map(padded, expected["dev -p"]))
    assert lines(domain, "resources") == expected["dev -i"]
    # crash has one disk of each major, and does not count requests of loop devices and others.
    own = lines(domain, "numbers")
    at = own.index(["BLKDEV", "NAME", "GENDISK", "OPERATIONS"])
    theirs = expected["dev"]
    assert own[:at] == theirs[:at]
    disks = {line[-2]: line[-1] for line in own[at + 1 :] if parsed(line[-2], 16) is not None}
    for line in theirs[at + 1 :]:
        assert line[:2] in [one[:2] for one in own[at + 1 :]]
        if line[-1] != "(none)":
            assert disks[line[-2]] == line[-1] or parsed(disks[line[-2]], 16) is not None
    counted = lines(domain, "disks")
    for line in expected["dev -d"]:
        assert line in counted
    assert expected["dev -d"] or name in MORE
