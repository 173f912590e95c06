"""PCI buses and their devices."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .._native import AbsentError
from ..isolation import isolated
from ..limits import MAX_PCI_DEPTH
from .kernel import Kernel
from .linked_structs import LinkedStructs

_MAX_NAME = 64
#: Bits 4 to 7 of the PCI Express capabilities register (include/uapi/linux/pci_regs.h).
_TYPES = {
    0x0: "ENDPOINT",
    0x1: "LEG_END",
    0x4: "ROOT_PORT",
    0x5: "UPSTREAM",
    0x6: "DOWNSTREAM",
    0x7: "PCI_BRIDGE",
    0x8: "PCIE_BRIDGE",
    0x9: "RC_END",
    0xA: "RC_EC",
}
#: PCI_HEADER_TYPE_BRIDGE and PCI_HEADER_TYPE_CARDBUS.
_BRIDGES = (1, 2)


class Device(NamedTuple):
    """A PCI device."""

    #: Address of the struct pci_dev.
    address: int
    #: Domain, bus, slot and function: ``0000:00:01.3``.
    name: str
    #: Class and subclass.
    kind: int
    vendor: int
    device: int
    #: As crash names it; a number in hex if it has no name.
    type: str
    is_bridge: bool


class Bus(NamedTuple):
    """A PCI bus."""

    #: Address of the struct pci_bus.
    address: int
    #: Address of the bus that it is behind; 0 of a root bus.
    parent: int
    name: str
    #: The bridge that leads to it comes first.
    devices: Sequence[Device]


def buses(kernel: Kernel) -> Iterator[Bus]:
    """All buses, each before those behind it.

    What cannot be read is left out with a warning. AbsentError if the layout is not known.
    """
    lists = _Lists(
        LinkedStructs(kernel, "pci_bus.node"), LinkedStructs(kernel, "pci_dev.bus_list"), set()
    )
    yield from _below(kernel, lists, kernel.symbol("pci_root_buses"), 0, 0)


class _Lists(NamedTuple):
    """What all lists share."""

    buses: LinkedStructs
    devices: LinkedStructs
    #: Addresses of the buses so far.
    seen: set[int]


def _below(kernel: Kernel, lists: _Lists, head: int, parent: int, depth: int) -> Iterator[Bus]:
    if depth >= MAX_PCI_DEPTH:
        raise AbsentError(f"PCI buses are behind each other {depth} times: they are damaged")
    for at in lists.buses.list(head):
        if at in lists.seen:
            raise AbsentError(f"the PCI bus at {at:#x} is behind itself")
        lists.seen.add(at)
        with isolated(f"the PCI bus at {at:#x} cannot be read", kernel.warn):
            name = _name(kernel, at + kernel.offset("pci_bus.dev"))
            yield Bus(at, parent, name, list(_devices(kernel, lists, at)))
            children = at + kernel.offset("pci_bus.children")
            yield from _below(kernel, lists, children, at, depth + 1)


def _devices(kernel: Kernel, lists: _Lists, bus: int) -> Iterator[Device]:
    bridge = kernel.read(bus, "pci_bus.self")
    found = lists.devices.list(bus + kernel.offset("pci_bus.devices"))
    for at in [bridge, *found] if bridge else found:
        with isolated(f"the PCI device at {at:#x} cannot be read", kernel.warn):
            kind = kernel.read(at, "pci_dev.pcie_flags_reg") >> 4 & 0xF
            yield Device(
                at,
                _name(kernel, at + kernel.offset("pci_dev.dev")),
                kernel.read(at, "pci_dev.class") >> 8,
                kernel.read(at, "pci_dev.vendor"),
                kernel.read(at, "pci_dev.device"),
                _TYPES.get(kind, f"{kind:x}"),
                kernel.read(at, "pci_dev.hdr_type") in _BRIDGES,
            )


def _name(kernel: Kernel, device: int) -> str:
    """The name of a struct device."""
    return kernel.text(device, "device.init_name", _MAX_NAME) or kernel.text(
        device, "device.kobj.name", _MAX_NAME
    )
