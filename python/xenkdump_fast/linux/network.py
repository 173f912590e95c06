"""Network devices with their addresses, the ARP table, and the sockets of processes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from socket import AF_INET, AF_INET6, inet_ntop
from typing import NamedTuple

from .._native import AbsentError
from ..isolation import isolated
from ..limits import MAX_NEIGHBOUR_BITS, MAX_NETWORK_ADDRESSES, MAX_NETWORK_DEVICES
from .chains import chain
from .files import File, open_files
from .kernel import Kernel
from .linked_structs import LinkedStructs
from .tasks import Task

#: IFNAMSIZ; MAX_ADDR_LEN.
_MAX_NAME, _MAX_HARDWARE = 16, 32
#: include/uapi/linux/if_arp.h, by the names of crash.
_HARDWARE = {
    0: "NETROM",
    1: "ETHER",
    2: "EETHER",
    3: "AX25",
    4: "PRONET",
    5: "CHAOS",
    6: "IEEE802",
    7: "ARCNET",
    8: "APPLETLK",
    15: "DLCI",
    19: "ATM",
    23: "METRICOM",
    24: "IEEE1394",
    27: "EUI64",
    32: "INFINIBAND",
}
#: include/uapi/linux/neighbour.h, from the lowest bit.
_STATES = (
    "INCOMPLETE",
    "REACHABLE",
    "STALE",
    "DELAY",
    "PROBE",
    "FAILED",
    "NOARP",
    "PERMANENT",
)
#: include/linux/socket.h, by the names of crash.
_FAMILIES = {
    0: "UNSPEC",
    1: "UNIX",
    2: "INET",
    3: "AX25",
    4: "IPX",
    5: "APPLETALK",
    6: "NETROM",
    7: "BRIDGE",
    8: "ATMPVC",
    9: "X25",
    10: "INET6",
    11: "ROSE",
    12: "DECnet",
    13: "NETBEUI",
    14: "SECURITY",
    15: "KEY",
    16: "NETLINK/ROUTE",
    17: "PACKET",
    18: "ASH",
    19: "ECONET",
    20: "ATMSVC",
    22: "SNA",
    23: "IRDA",
    24: "PPPOX",
    25: "WANPIPE",
    31: "BLUETOOTH",
    38: "ALG",
    40: "VSOCK",
    44: "XDP",
}
#: include/linux/net.h.
_SOCKET_TYPES = {
    1: "STREAM",
    2: "DGRAM",
    3: "RAW",
    4: "RDM",
    5: "SEQPACKET",
    6: "DCCP",
    10: "PACKET",
}


class Address(NamedTuple):
    """An address of a device."""

    address: str
    #: Bits of the network's part.
    prefix: int
    #: The other end of a point-to-point connection.
    peer: str | None


class Device(NamedTuple):
    """A network device."""

    #: Address of the struct net_device.
    address: int
    name: str
    #: Its number.
    number: int
    flags: int
    mtu: int
    #: Of its hardware, in hex with colons.
    hardware: str
    addresses: Sequence[Address]


class Neighbour(NamedTuple):
    """An entry of the ARP table."""

    #: Address of the struct neighbour.
    address: int
    ip: str
    #: As crash names it; ``UNKNOWN`` for others.
    type: str
    hardware: str
    device: str
    state: str


class Endpoint(NamedTuple):
    """One end of a connection."""

    address: str
    port: int


class Socket(NamedTuple):
    """An open socket."""

    fd: int
    #: Addresses of the struct socket and the struct sock; the latter is 0 of one that was released.
    socket: int
    sock: int
    #: As crash names them; a number if they have no name.
    family: str
    type: str
    #: None unless the family is INET or INET6.
    source: Endpoint | None
    destination: Endpoint | None


def devices(kernel: Kernel, namespace: int) -> list[Device]:
    """The devices of the struct net at an address, in its order.

    Those that cannot be read are left out with a warning. AbsentError if the layout is not known.
    """
    structs = LinkedStructs(kernel, "net_device.dev_list", MAX_NETWORK_DEVICES)
    addresses = _Addresses(kernel)
    found = []
    for at in structs.list(namespace + kernel.offset("net.dev_base_head")):
        with isolated(f"the network device at {at:#x} cannot be read", kernel.warn):
            found.append(
                Device(
                    at,
                    kernel.text(at, "net_device.name", _MAX_NAME),
                    kernel.read(at, "net_device.ifindex"),
                    kernel.read(at, "net_device.flags"),
                    kernel.read(at, "net_device.mtu"),
                    _hardware(kernel, at, kernel.read(at, "net_device.dev_addr")),
                    [*addresses.ipv4(at), *addresses.ipv6(at)],
                )
            )
    return found


def _hardware(kernel: Kernel, device: int, address: int) -> str:
    size = min(kernel.read(device, "net_device.addr_len"), _MAX_HARDWARE)
    return kernel.data(address, size).hex(":") if size and address else ""


class _Addresses:
    """Reads the addresses of network devices."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @cached_property
    def _ipv4_structs(self) -> LinkedStructs:
        return LinkedStructs(self._kernel, "in_ifaddr.ifa_next", MAX_NETWORK_ADDRESSES)

    @cached_property
    def _ipv6_structs(self) -> LinkedStructs:
        return LinkedStructs(self._kernel, "inet6_ifaddr.if_list", MAX_NETWORK_ADDRESSES)

    def ipv4(self, device: int) -> Iterator[Address]:
        kernel = self._kernel
        with isolated(f"IPv4 addresses of the network device at {device:#x}", kernel.warn):
            inside = kernel.read(device, "net_device.ip_ptr")
            first = kernel.read(inside, "in_device.ifa_list") if inside else 0
            for at in chain(kernel, first, "in_ifaddr.ifa_next", self._ipv4_structs):
                local, address = (
                    inet_ntop(AF_INET, kernel.data(at + kernel.offset(f"in_ifaddr.{name}"), 4))
                    for name in ("ifa_local", "ifa_address")
                )
                prefix = kernel.read(at, "in_ifaddr.ifa_prefixlen")
                yield Address(local, prefix, None if local == address else address)

    def ipv6(self, device: int) -> Iterator[Address]:
        kernel = self._kernel
        if not kernel.has("net_device.ip6_ptr"):
            return
        with isolated(f"IPv6 addresses of the network device at {device:#x}", kernel.warn):
            inside = kernel.read(device, "net_device.ip6_ptr")
            if not inside:
                return
            for at in self._ipv6_structs.list(inside + kernel.offset("inet6_dev.addr_list")):
                own, peer = (
                    kernel.data(at + kernel.offset(f"inet6_ifaddr.{name}"), 16)
                    for name in ("addr", "peer_addr")
                )
                prefix = kernel.read(at, "inet6_ifaddr.prefix_len")
                other = inet_ntop(AF_INET6, peer) if any(peer) else None
                yield Address(inet_ntop(AF_INET6, own), prefix, other)


def neighbours(kernel: Kernel) -> list[Neighbour]:
    """The ARP table, of all namespaces, in the order of its hash table."""
    table = kernel.read(kernel.symbol("arp_tbl"), "neigh_table.nht")
    bits = kernel.read(table, "neigh_hash_table.hash_shift")
    if not 0 <= bits <= MAX_NEIGHBOUR_BITS:
        raise AbsentError(f"the ARP table has 2^{bits} buckets: it is damaged")
    found = []
    for at in _neighbours(kernel, table, 1 << bits):
        with isolated(f"the neighbour at {at:#x} cannot be read", kernel.warn):
            found.append(_neighbour(kernel, at))
    return found


def _neighbours(kernel: Kernel, table: int, count: int) -> Iterator[int]:
    # 6.13 (41b3caa7c076): an hlist in place of pointers to the next one.
    if kernel.has("neigh_hash_table.hash_heads"):
        first = kernel.read(table, "neigh_hash_table.hash_heads")
        structs = LinkedStructs(kernel, "neighbour.hash")
        heads = [first + i * kernel.word for i in range(count)]
        for walked in structs.lists(heads, "null-terminated"):
            if walked.problem is not None:
                kernel.warn(walked.problem)
            yield from walked.entries
        return
    structs = LinkedStructs(kernel, "neighbour.next")
    data = kernel.data(kernel.read(table, "neigh_hash_table.hash_buckets"), count * kernel.word)
    with isolated("neighbours are missing", kernel.warn):
        for i in range(count):
            bucket = int.from_bytes(data[i * kernel.word : (i + 1) * kernel.word], "little")
            yield from chain(kernel, bucket, "neighbour.next", structs)


def _neighbour(kernel: Kernel, at: int) -> Neighbour:
    device = kernel.read(at, "neighbour.dev")
    state = kernel.read(at, "neighbour.nud_state")
    names = [name for i, name in enumerate(_STATES) if state >> i & 1]
    return Neighbour(
        at,
        inet_ntop(AF_INET, kernel.data(at + kernel.offset("neighbour.primary_key"), 4)),
        _HARDWARE.get(kernel.read(device, "net_device.type"), "UNKNOWN"),
        _hardware(kernel, device, at + kernel.offset("neighbour.ha")),
        kernel.text(device, "net_device.name", _MAX_NAME),
        "|".join(names) or "NONE",
    )


def sockets(kernel: Kernel, tasks: Sequence[Task]) -> Mapping[int, Sequence[Socket]]:
    """The open sockets of each task, by its address.

    Those that cannot be read are left out with a warning. AbsentError if the layout is not known.
    """
    inode, inside = kernel.offset("socket_alloc.vfs_inode"), kernel.offset("socket_alloc.socket")
    known: dict[int, Socket | None] = {}

    def socket(file: File) -> Socket | None:
        at = kernel.containing(file.inode, inode) + inside & kernel.last
        if at not in known:
            known[at] = None
            with isolated(f"the socket at {at:#x} cannot be read", kernel.warn):
                known[at] = _socket(kernel, at)
        return known[at]

    found = {}
    for address, opened in open_files(kernel, tasks).items():
        # Files of sockfs: a path to an inode of another file system is no socket.
        files = [one for one in opened.files if one.path.startswith("socket:[")]
        made = [(one.number, socket(one)) for one in files]
        found[address] = [one._replace(fd=number) for number, one in made if one is not None]
    return found


def _socket(kernel: Kernel, at: int) -> Socket:
    kind = kernel.read(at, "socket.type")
    type_name = _SOCKET_TYPES.get(kind, str(kind))
    sock = kernel.read(at, "socket.sk")
    if not sock:
        return Socket(-1, at, 0, "", type_name, None, None)
    family = kernel.read(sock, "sock.__sk_common.skc_family")
    ends: tuple[Endpoint | None, Endpoint | None] = (None, None)
    if family in (AF_INET, AF_INET6):
        version = AF_INET if family == AF_INET else AF_INET6
        size, infix = (4, "") if family == AF_INET else (16, "v6_")
        own, other = (
            inet_ntop(
                version,
                kernel.data(sock + kernel.offset(f"sock.__sk_common.skc_{infix}{name}"), size),
            )
            for name in ("rcv_saddr", "daddr")
        )
        # In the order of the network.
        port = kernel.data(sock + kernel.offset("inet_sock.inet_sport"), 2)
        other_port = kernel.data(sock + kernel.offset("sock.__sk_common.skc_dport"), 2)
        ends = (
            Endpoint(own, int.from_bytes(port, "big")),
            Endpoint(other, int.from_bytes(other_port, "big")),
        )
    return Socket(-1, at, sock, _FAMILIES.get(family, str(family)), type_name, *ends)
