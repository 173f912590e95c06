"""PCI buses and resources, and damage in them."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import pci, resources
from xenkdump_fast.linux.resources import Resource

from .objects import NOWHERE, Objects

LAYOUTS = """
device: init_name kobj.name
pci_bus: node:16 children:16 devices:16 self dev:16
pci_dev: bus_list:16 vendor:2 device:2 class:4 hdr_type:1 pad:1 pcie_flags_reg:2 pad2:4 dev:16
resource: start end name sibling child
"""


class Machine:
    """A root bus with a bridge to a second bus."""

    def __init__(self) -> None:
        self.objects = Objects(LAYOUTS)
        self.kernel = self.objects.kernel
        self.root, self.second = self._bus("0000:00"), self._bus("0000:01")
        self.bridge = self._device("0000:00:03.0", 0x60400, 0x40, 1)
        self.card = self._device("0000:01:00.0", 0x20000, 0, 0)
        self.objects.set(self.second, "pci_bus", self=self.bridge)
        self.head = self.objects.reserve(16)
        self.objects.symbols(pci_root_buses=self.head)
        offset = self.kernel.offset
        self.objects.link(self.head, [self.root])
        self.objects.link(self.root + offset("pci_bus.children"), [self.second])
        self.objects.link(self.second + offset("pci_bus.children"), [])
        self.objects.link(self.root + offset("pci_bus.devices"), [self.bridge])
        self.objects.link(self.second + offset("pci_bus.devices"), [self.card])

    def _bus(self, name: str) -> int:
        at = self.objects.make("pci_bus")
        self.objects.set(at + self.kernel.offset("pci_bus.dev"), "device", kobj__name=name)
        return at

    def _device(self, name: str, kind: int, flags: int, header: int) -> int:
        values: dict[str, int | str] = {"class": kind, "vendor": 0x8086, "device": 0xC}
        at = self.objects.make("pci_dev", pcie_flags_reg=flags, hdr_type=header, **values)
        self.objects.set(at + self.kernel.offset("pci_dev.dev"), "device", init_name=name)
        return at


def test_buses() -> None:
    made = Machine()
    root, second = pci.buses(made.kernel)
    bridge = pci.Device(
        made.bridge, "0000:00:03.0", 0x604, 0x8086, 0xC, "ROOT_PORT", is_bridge=True
    )
    card = pci.Device(made.card, "0000:01:00.0", 0x200, 0x8086, 0xC, "ENDPOINT", is_bridge=False)
    assert root == pci.Bus(made.root, 0, "0000:00", [bridge])
    assert second == pci.Bus(made.second, made.root, "0000:01", [bridge, card])
    assert made.kernel.warnings == []


def test_a_bus_behind_itself() -> None:
    made = Machine()
    children = made.second + made.kernel.offset("pci_bus.children")
    made.kernel.memory.number(children, made.root, 8)
    assert [one.name for one in pci.buses(made.kernel)] == ["0000:00", "0000:01"]
    assert any("behind itself" in text for text in made.kernel.warnings)


def test_damaged_devices() -> None:
    made = Machine()
    made.objects.set(made.second, "pci_bus", self=NOWHERE)
    found = list(pci.buses(made.kernel))
    assert [len(one.devices) for one in found] == [1, 1]
    assert "the PCI device at" in made.kernel.warnings[0]
    made.kernel.memory.number(made.head, NOWHERE, 8)
    assert list(pci.buses(made.kernel)) == []


def test_too_many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pci, "MAX_PCI_DEPTH", 1)
    made = Machine()
    assert [one.name for one in pci.buses(made.kernel)] == ["0000:00"]
    assert any("behind each other 1 times" in text for text in made.kernel.warnings)


class Tree:
    """A root with two resources, and one in the first of these."""

    def __init__(self) -> None:
        self.objects = Objects(LAYOUTS)
        self.kernel = self.objects.kernel
        make = self.objects.make
        self.inner = make("resource", start=2, end=3, name="inner")
        self.last = make("resource", start=8, end=9, name="last")
        self.first = make(
            "resource", start=1, end=4, name="first", child=self.inner, sibling=self.last
        )
        self.root = make("resource", start=0, end=0xFFFF, name="PCI IO", child=self.first)
        self.objects.symbols(ioport_resource=self.root)

    def read(self) -> list[Resource]:
        return list(resources.resources(self.kernel, "ioport_resource"))


def test_resources() -> None:
    made = Tree()
    assert made.read() == [
        Resource(made.root, 0, 0, 0xFFFF, "PCI IO"),
        Resource(made.first, 1, 1, 4, "first"),
        Resource(made.inner, 2, 2, 3, "inner"),
        Resource(made.last, 1, 8, 9, "last"),
    ]


@pytest.mark.parametrize(
    ("member", "problem"), [("child", "lead back to"), ("sibling", "lead back to")]
)
def test_resources_in_a_loop(member: str, problem: str) -> None:
    made = Tree()
    made.objects.set(made.inner, "resource", **{member: made.first})
    with pytest.raises(AbsentError, match=problem):
        made.read()


def test_damaged_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Tree()
    made.objects.set(made.inner, "resource", name=NOWHERE)
    with pytest.raises(AbsentError, match="not mapped"):
        made.read()
    monkeypatch.setattr(resources, "MAX_RESOURCE_DEPTH", 1)
    with pytest.raises(AbsentError, match="within each other 2 times"):
        made.read()


def test_overlapping_structs() -> None:
    made = Machine()
    devices = made.root + made.kernel.offset("pci_bus.devices")
    made.objects.link(devices, [made.bridge, made.bridge + 16])
    assert len(next(iter(pci.buses(made.kernel))).devices) == 1
    assert any("the struct pci_dev at" in text for text in made.kernel.warnings)
    made.objects.link(made.head, [made.root, made.root + 8])
    list(pci.buses(made.kernel))
    assert any("the struct pci_bus at" in text for text in made.kernel.warnings)
