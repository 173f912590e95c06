"""``net``: network devices, the ARP table, and the sockets of processes."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from socket import AF_INET6, inet_pton

from .._typing import Any, NamedTuple, NotRequired, TypedDict
from ..limits import MAX_DEVICES_READ
from ..linux import namespaces, network
from ..linux.kernel import Kernel
from ..linux.network import Address, Device, Endpoint, Neighbour, Socket
from ..linux.tasks import Task
from ..linux.typed import printing
from ..linux.typed.value import Value
from ..output.escape import visible
from ..output.json_types import Count, Hex, Stream
from ..output.table import columns
from ..session import Domain
from . import addresses, selection, struct
from .contract import Operands, UsageError

OPERANDS = Operands("PID|TASK|COMM", "with -s, -S and -n: these tasks; by default the current one")
#: Those of ``struct socket`` and ``struct sock``.
_DUMPED = ("socket", "sock")


class Options(NamedTuple):
    """What is shown: the devices of the initial namespace, or one of the others."""

    operands: Sequence[str] = ()
    arp: bool = False
    sockets: bool = False
    #: Sockets as structs.
    structs: bool = False
    #: The devices in the namespace of the task.
    namespace: bool = False
    #: Every process, of sockets.
    all: bool = False
    #: Only sockets with this descriptor, or this address of a socket or a sock.
    match: str | None = None
    #: Numbers of structs in hex.
    hex: bool = False
    #: The current task of the shell.
    task: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``net``."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-a", "--arp", action="store_true", help="the ARP table")
    which.add_argument("-s", "--sockets", action="store_true", help="the open sockets of tasks")
    which.add_argument(
        "-S", "--structs", action="store_true", help="the same, with struct socket and struct sock"
    )
    which.add_argument(
        "-n", "--namespace", action="store_true", help="the devices in the namespace of a task"
    )
    parser.add_argument("--all", action="store_true", help="with -s and -S: every process")
    parser.add_argument(
        "-R",
        "--match",
        metavar="REF",
        help="with -s and -S: only the descriptor, or the address of a socket or a sock in hex",
    )
    parser.add_argument("-x", "--hex", action="store_true", help="with -S: numbers in hex")


def run(target: Domain, options: Options = Options()) -> "Net":
    """Reads what the options ask for.

    AbsentError if no chosen task exists, or the kernel's types are not known.
    """
    kernel = target.kernel
    with_sockets = options.sockets or options.structs
    _check(options, with_sockets)
    with kernel.budget("network structs", MAX_DEVICES_READ):
        if options.arp:
            return Net(target.id, kernel, neighbours=network.neighbours(kernel))
        if with_sockets:
            tasks, failure = selection.chosen(
                target, options.operands, options.task, everyone=options.all
            )
            found = network.sockets(kernel, tasks)
            shown = [
                (task, _matching(found.get(task.address, ()), options.match)) for task in tasks
            ]
            if options.match is not None:
                shown = [(task, sockets) for task, sockets in shown if sockets]
            dump = printing.Style(16 if options.hex else 10) if options.structs else None
            return Net(target.id, kernel, sockets=shown, style=dump, failure=failure)
        if options.namespace:
            name = options.operands[0] if options.operands else options.task
            chosen = (
                addresses.process(target, name)
                if name is not None
                else selection.chosen(target, (), None).tasks[0]
            )
            namespace = namespaces.of_task(kernel, chosen.address, "net_ns")
        else:
            namespace = namespaces.initial(kernel, "net_ns")
        return Net(target.id, kernel, devices=network.devices(kernel, namespace))


def _check(options: Options, with_sockets: bool) -> None:
    for name, given in (("--all", options.all), ("-R/--match", options.match is not None)):
        if given and not with_sockets:
            raise UsageError(f"argument {name}: needs -s/--sockets or -S/--structs")
    if options.hex and not options.structs:
        raise UsageError("argument -x/--hex: needs -S/--structs")
    if options.operands and not (with_sockets or options.namespace):
        raise UsageError("a task is only for -s/--sockets, -S/--structs and -n/--namespace")
    if options.all and options.operands:
        raise UsageError("argument --all: not allowed with a pid or a task")
    if options.namespace and len(options.operands) > 1:
        raise UsageError("argument -n/--namespace: one task is needed")


def _matching(sockets: Sequence[Socket], text: str | None) -> Sequence[Socket]:
    if text is None:
        return sockets
    wanted = text.lower().removeprefix("0x")
    return [
        one
        for one in sockets
        if wanted in (f"{one.socket:x}", f"{one.sock:x}") or text == str(one.fd)
    ]


class AddressJson(TypedDict):
    """An address of a device. ``peer`` is null unless the device is point-to-point."""

    address: str
    prefix: Count
    peer: str | None


class DeviceJson(TypedDict):
    """A device. ``hardware`` is empty if it has no address."""

    net_device: Hex
    name: str
    index: int
    flags: Hex
    mtu: Count
    hardware: str
    addresses: list[AddressJson]


class NeighbourJson(TypedDict):
    """An entry of the ARP table."""

    neighbour: Hex
    address: str
    type: str
    hardware: str
    device: str
    state: str


class EndpointJson(TypedDict):
    """One end of a connection."""

    address: str
    port: Count


class SocketJson(TypedDict):
    """A socket; ``structs`` only with ``-S``."""

    fd: Count
    socket: Hex
    sock: Hex
    family: str
    type: str
    source: EndpointJson | None
    destination: EndpointJson | None
    structs: NotRequired[dict[str, Any]]


class TaskJson(TypedDict):
    """The sockets of a task."""

    pid: Count
    task: Hex
    comm: str
    sockets: list[SocketJson]


class JSON(TypedDict):
    """What ``net --json`` prints: one of the lists."""

    domain: Count
    devices: NotRequired[list[DeviceJson]]
    neighbours: NotRequired[list[NeighbourJson]]
    tasks: NotRequired[Stream[TaskJson]]


class Net(NamedTuple):
    """Devices, neighbours, or sockets."""

    domain: int
    kernel: Kernel
    devices: Sequence[Device] | None = None
    neighbours: Sequence[Neighbour] | None = None
    sockets: Sequence[tuple[Task, Sequence[Socket]]] | None = None
    #: How structs are printed; None if they are not.
    style: printing.Style | None = None
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """As crash prints them."""
        if self.devices is not None:
            yield from self._devices(self.devices)
        if self.neighbours is not None:
            yield from self._neighbours(self.neighbours)
        for i, (task, sockets) in enumerate(self.sockets or ()):
            if i:
                yield ""
            yield selection.heading(task)
            yield from self._sockets(sockets)

    def _devices(self, devices: Sequence[Device]) -> Iterator[str]:
        width = self.kernel.word * 2
        rows = [("NET_DEVICE".center(width), "NAME", "IP ADDRESS(ES)")]
        for one in devices:
            shown = ", ".join(map(_address, one.addresses))
            rows.append((f"{one.address:{width}x}", visible(one.name), shown))
        yield from columns(rows, "<<<", "  ")

    def _neighbours(self, neighbours: Sequence[Neighbour]) -> Iterator[str]:
        rows = [("NEIGHBOUR", "IP ADDRESS", "HW TYPE", "HW ADDRESS", "DEVICE", "STATE")]
        rows += [
            (f"{one.address:x}", one.ip, one.type, one.hardware, visible(one.device), one.state)
            for one in neighbours
        ]
        yield from columns(rows, "<<<<<<", "  ")

    def _sockets(self, sockets: Sequence[Socket]) -> Iterator[str]:
        width = self.kernel.word * 2
        if not sockets:
            yield "No open sockets."
            return
        rows = [
            (
                "FD",
                "SOCKET".center(width),
                "SOCK".center(width),
                "FAMILY:TYPE",
                "SOURCE-PORT",
                "DESTINATION-PORT",
            )
        ]
        rows += [
            (
                str(one.fd),
                f"{one.socket:x}",
                f"{one.sock:x}",
                f"{one.family}:{one.type}",
                _endpoint(one.source),
                _endpoint(one.destination),
            )
            for one in sockets
        ]
        heading, *lines = columns(rows, "><<<<<")
        if self.style is None:
            yield heading
            yield from lines
            return
        for i, (one, line) in enumerate(zip(sockets, lines, strict=True)):
            if i:
                yield ""
            yield heading
            yield line
            for value in self._values(one).values():
                yield from struct.shown(value, (), self.style)

    def _values(self, socket: Socket) -> Mapping[str, Value]:
        """The structs of a socket."""
        graph = self.kernel.types.graph
        places = zip(_DUMPED, (socket.socket, socket.sock), strict=True)
        return {
            name: Value(self.kernel, graph.find(f"struct {name}"), at) for name, at in places if at
        }

    def json(self) -> JSON:
        """The same."""
        found: JSON = {"domain": self.domain}
        if self.devices is not None:
            found["devices"] = [_device_json(one) for one in self.devices]
        if self.neighbours is not None:
            found["neighbours"] = [_neighbour_json(one) for one in self.neighbours]
        if self.sockets is not None:
            found["tasks"] = map(self._task_json, self.sockets)
        return found

    def _task_json(self, shown: tuple[Task, Sequence[Socket]]) -> TaskJson:
        task, sockets = shown
        return {
            "pid": task.pid,
            "task": hex(task.address),
            "comm": task.comm,
            "sockets": [self._socket_json(one) for one in sockets],
        }

    def _socket_json(self, one: Socket) -> SocketJson:
        found: SocketJson = {
            "fd": one.fd,
            "socket": hex(one.socket),
            "sock": hex(one.sock),
            "family": one.family,
            "type": one.type,
            "source": _endpoint_json(one.source),
            "destination": _endpoint_json(one.destination),
        }
        if self.style is not None:
            values = self._values(one).items()
            found["structs"] = {name: struct.plain(value, ()) for name, value in values}
        return found


def _address(one: Address) -> str:
    return one.address if one.peer is None else f"{one.address} peer {one.peer}"


def _endpoint(one: Endpoint | None) -> str:
    """An address and a port as crash writes them: IPv6 without ``::``."""
    if one is None:
        return ""
    address = one.address
    if ":" in address:
        data = inet_pton(AF_INET6, address)
        address = ":".join(f"{int.from_bytes(data[i : i + 2], 'big'):x}" for i in range(0, 16, 2))
    return f"{address}-{one.port}"


def _device_json(one: Device) -> DeviceJson:
    return {
        "net_device": hex(one.address),
        "name": one.name,
        "index": one.number,
        "flags": hex(one.flags),
        "mtu": one.mtu,
        "hardware": one.hardware,
        "addresses": [
            {"address": each.address, "prefix": each.prefix, "peer": each.peer}
            for each in one.addresses
        ],
    }


def _neighbour_json(one: Neighbour) -> NeighbourJson:
    return {
        "neighbour": hex(one.address),
        "address": one.ip,
        "type": one.type,
        "hardware": one.hardware,
        "device": one.device,
        "state": one.state,
    }


def _endpoint_json(one: Endpoint | None) -> EndpointJson | None:
    return None if one is None else {"address": one.address, "port": one.port}
