"""``dev``: character and block devices, disks, PCI devices, I/O resources."""

import argparse
from collections.abc import Iterator, Mapping, Sequence

from .._typing import Literal, NamedTuple, NotRequired, TypedDict
from ..isolation import isolated
from ..limits import MAX_DEVICES_READ
from ..linux import device_numbers, disks, pci, resources
from ..linux.device_numbers import Block, Character
from ..linux.disks import Disk, Requests
from ..linux.kernel import Kernel
from ..linux.pci import Bus
from ..linux.resources import Resource
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..output.table import columns
from ..session import Domain
from .addresses import Program, program

What = Literal["numbers", "disks", "busy", "pci", "resources"]
#: The roots of the trees of resources, with the names of crash.
_ROOTS = {"ports": "ioport_resource", "memory": "iomem_resource"}


class Options(NamedTuple):
    """What is shown."""

    what: What = "numbers"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``dev``."""
    which = parser.add_mutually_exclusive_group()
    texts: dict[What, tuple[str, str, str]] = {
        "disks": ("-d", "--disks", "disks, and the requests that they work on"),
        "busy": ("-D", "--busy-disks", "the same of disks with requests"),
        "pci": ("-p", "--pci", "PCI devices by their buses"),
        "resources": ("-i", "--resources", "ranges of I/O ports and of memory"),
    }
    for what, (short, long, text) in texts.items():
        which.add_argument(short, long, dest="what", action="store_const", const=what, help=text)
    parser.set_defaults(what="numbers")


def run(target: Domain, options: Options = Options()) -> "Devices":
    """Reads what the options ask for. AbsentError if the kernel's types are not known."""
    kernel = target.kernel
    found = Devices(target.id, program(target))
    with kernel.budget("structs of devices", MAX_DEVICES_READ):
        if options.what == "pci":
            return found._replace(buses=list(pci.buses(kernel)))
        if options.what == "resources":
            trees = {name: _resources(kernel, root) for name, root in _ROOTS.items()}
            return found._replace(resources=trees)
        listed = disks.disks(kernel)
        if options.what == "numbers":
            return found._replace(
                characters=device_numbers.characters(kernel),
                blocks=device_numbers.blocks(kernel),
                known=listed,
            )
        counted = [(one, _requests(kernel, one)) for one in listed]
        if options.what == "busy":
            counted = [(one, at) for one, at in counted if at is None or at.reads or at.writes]
        return found._replace(disks=counted)


def _requests(kernel: Kernel, disk: Disk) -> Requests | None:
    with isolated(f"the requests of {disk.name} cannot be counted", kernel.warn):
        return disks.requests(kernel, disk)
    return None


def _resources(kernel: Kernel, root: str) -> Sequence[Resource]:
    found: list[Resource] = []
    with isolated(f"{root} is incomplete", kernel.warn):
        found.extend(resources.resources(kernel, root))
    return found


class CharacterJson(TypedDict):
    """A range of character devices. ``cdev`` is null if the first number has no device."""

    major: Count
    minor: Count
    minors: Count
    name: str
    cdev: Hex | None
    operations: Hex | None
    symbol: str | None
    module: str | None


class DiskJson(TypedDict):
    """A disk."""

    gendisk: Hex
    major: Count
    minor: Count
    name: str
    operations: Hex
    symbol: str | None
    module: str | None


class BlockJson(TypedDict):
    """A major of block devices, with its disks."""

    major: Count
    name: str
    disks: list[DiskJson]


class RequestsJson(TypedDict):
    """The requests of a disk; null if they cannot be counted."""

    gendisk: Hex
    major: Count
    name: str
    queue: Hex
    reads: int | None
    writes: int | None


class PciDeviceJson(TypedDict):
    """A PCI device. ``class`` has the subclass in its lower byte."""

    pci_dev: Hex
    name: str
    vendor: Hex
    device: Hex
    type: str
    bridge: bool


# "class" is a keyword.
PciDeviceClass = TypedDict("PciDeviceClass", {"class": Hex})


class PciJson(PciDeviceJson, PciDeviceClass):
    """A PCI device with its class."""


class BusJson(TypedDict):
    """A PCI bus. ``parent`` is null of a root bus."""

    pci_bus: Hex
    parent: Hex | None
    name: str
    devices: list[PciJson]


class ResourceJson(TypedDict):
    """A range; ``depth`` counts those around it."""

    resource: Hex
    depth: Count
    start: Hex
    end: Hex
    name: str


class JSON(TypedDict):
    """What ``dev --json`` prints: what was asked for."""

    domain: Count
    characters: NotRequired[list[CharacterJson]]
    blocks: NotRequired[list[BlockJson]]
    disks: NotRequired[list[RequestsJson]]
    buses: NotRequired[list[BusJson]]
    ports: NotRequired[list[ResourceJson]]
    memory: NotRequired[list[ResourceJson]]


class Devices(NamedTuple):
    """What was asked for; the rest is None."""

    domain: int
    #: For the names of addresses.
    program: Program
    characters: Sequence[Character] | None = None
    blocks: Sequence[Block] | None = None
    #: The disks of the majors.
    known: Sequence[Disk] = ()
    disks: Sequence[tuple[Disk, Requests | None]] | None = None
    buses: Sequence[Bus] | None = None
    resources: Mapping[str, Sequence[Resource]] | None = None

    def text(self) -> Iterator[str]:
        """As crash prints it."""
        if self.characters is not None and self.blocks is not None:
            yield from self._numbers(self.characters, self.blocks)
        if self.disks is not None:
            yield from self._disks(self.disks)
        if self.buses is not None:
            yield from self._buses(self.buses)
        for i, found in enumerate((self.resources or {}).values()):
            if i:
                yield ""
            yield from self._resources(found)

    @property
    def _width(self) -> int:
        return self.program.word * 2

    def _symbol(self, address: int) -> str | None:
        """The symbol that begins at an address."""
        label = self.program.label(address)
        return label[0] if label is not None and not label[1] else None

    def _operations(self, one: Character | Disk) -> str:
        """The symbol of its operations, else their address with the module that has them."""
        if not one.operations:
            return ""
        module = f" [{one.module}]" if one.module else ""
        return visible(self._symbol(one.operations) or f"{one.operations:x}{module}")

    def _numbers(self, characters: Sequence[Character], blocks: Sequence[Block]) -> Iterator[str]:
        none = "(none)".center(self._width)
        rows = [("CHRDEV", "NAME", "CDEV".center(self._width), "OPERATIONS")]
        for one in characters:
            cdev = f"{one.cdev:x}" if one.cdev else none
            rows.append((str(one.major), visible(one.name), cdev, self._operations(one)))
        yield from columns(rows, "><<<", "  ")
        yield ""
        rows = [("BLKDEV", "NAME", "GENDISK".center(self._width), "OPERATIONS")]
        for major in blocks:
            start = (str(major.major), visible(major.name))
            own = [one for one in self.known if one.major == major.major]
            if not own:
                rows.append((*start, none, ""))
            for i, disk in enumerate(own):
                shown = (f"{disk.address:x}", self._operations(disk))
                rows.append((*(("", "") if i else start), *shown))
        yield from columns(rows, "><<<", "  ")

    def _disks(self, found: Sequence[tuple[Disk, Requests | None]]) -> Iterator[str]:
        rows = [("MAJOR", "GENDISK", "NAME", "REQUEST_QUEUE", "TOTAL", "READ", "WRITE")]
        for one, count in found:
            numbers = ("?", "?", "?")
            if count is not None:
                numbers = (str(count.reads + count.writes), str(count.reads), str(count.writes))
            row = (str(one.major), f"{one.address:x}", visible(one.name), f"{one.queue:x}")
            rows.append((*row, *numbers))
        yield from columns(rows, "><<<>>>", "  ")

    def _buses(self, buses: Sequence[Bus]) -> Iterator[str]:
        width = self._width
        for i, bus in enumerate(buses):
            if i:
                yield ""
            if bus.parent:
                yield f"  {'PCI BUS':^{width}} {'PARENT BUS':^{width}}".rstrip()
                yield f"  {bus.address:{width}x} {bus.parent:{width}x}"
            else:
                yield f"{'ROOT BUS':^{width}} BUSNAME"
                yield f"{bus.address:{width}x} {visible(bus.name)}"
            if bus.devices:
                yield f"  {'PCI DEV':^{width}} {'DO:BU:SL.FN':12} CLASS {'PCI_ID':^9} TYPE"
            for one in bus.devices:
                bridge = " [BRIDGE]" if one.is_bridge else ""
                yield (
                    f"  {one.address:{width}x} {visible(one.name):12}  {one.kind:04x}  "
                    f"{one.vendor:04x}:{one.device:04x} {one.type}{bridge}"
                )

    def _resources(self, found: Sequence[Resource]) -> Iterator[str]:
        width = self._width
        digits = len(f"{found[0].end:x}") if found else 1
        digits = 4 if digits <= 4 else 8
        ranges = [f"{one.start:0{digits}x}-{one.end:0{digits}x}" for one in found]
        wide = max(map(len, ranges), default=0)
        yield f"{'RESOURCE':^{width}}  {'RANGE':^{wide}}  NAME"
        for one, text in zip(found, ranges, strict=True):
            yield f"{one.address:{width}x}  {text:{wide}}  {visible(one.name)}".rstrip()

    def json(self) -> JSON:
        """The same."""
        found: JSON = {"domain": self.domain}
        if self.characters is not None:
            found["characters"] = [self._character(one) for one in self.characters]
        if self.blocks is not None:
            found["blocks"] = [self._block(one) for one in self.blocks]
        if self.disks is not None:
            found["disks"] = [_requests_json(one, count) for one, count in self.disks]
        if self.buses is not None:
            found["buses"] = [_bus_json(one) for one in self.buses]
        if self.resources is not None:
            found["ports"] = [_resource_json(one) for one in self.resources["ports"]]
            found["memory"] = [_resource_json(one) for one in self.resources["memory"]]
        return found

    def _character(self, one: Character) -> CharacterJson:
        return {
            "major": one.major,
            "minor": one.minor,
            "minors": one.minors,
            "name": one.name,
            "cdev": hex(one.cdev) if one.cdev else None,
            "operations": hex(one.operations) if one.cdev else None,
            "symbol": self._symbol(one.operations),
            "module": one.module or None,
        }

    def _block(self, one: Block) -> BlockJson:
        own = [disk for disk in self.known if disk.major == one.major]
        return {
            "major": one.major,
            "name": one.name,
            "disks": [
                {
                    "gendisk": hex(disk.address),
                    "major": disk.major,
                    "minor": disk.minor,
                    "name": disk.name,
                    "operations": hex(disk.operations),
                    "symbol": self._symbol(disk.operations),
                    "module": disk.module or None,
                }
                for disk in own
            ],
        }


def _requests_json(one: Disk, count: Requests | None) -> RequestsJson:
    return {
        "gendisk": hex(one.address),
        "major": one.major,
        "name": one.name,
        "queue": hex(one.queue),
        "reads": None if count is None else count.reads,
        "writes": None if count is None else count.writes,
    }


def _bus_json(one: Bus) -> BusJson:
    return {
        "pci_bus": hex(one.address),
        "parent": hex(one.parent) if one.parent else None,
        "name": one.name,
        "devices": [
            {
                "pci_dev": hex(each.address),
                "name": each.name,
                "vendor": f"{each.vendor:#06x}",
                "device": f"{each.device:#06x}",
                "type": each.type,
                "bridge": each.is_bridge,
                "class": f"{each.kind:#06x}",
            }
            for each in one.devices
        ],
    }


def _resource_json(one: Resource) -> ResourceJson:
    return {
        "resource": hex(one.address),
        "depth": one.depth,
        "start": hex(one.start),
        "end": hex(one.end),
        "name": one.name,
    }
