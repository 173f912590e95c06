"""Network devices, neighbours and sockets, and damage in them."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.limits import MAX_NEIGHBOUR_BITS
from xenkdump_fast.linux import network
from xenkdump_fast.linux.files import File, OpenFiles
from xenkdump_fast.linux.network import Address, Endpoint

from .objects import NOWHERE, Objects, overlapping

COMMON = """
net: dev_base_head:16
net_device: name:16* dev_list:16 ifindex:4 flags:4 mtu:4 type:2 addr_len:1 pad:1 dev_addr ip_ptr \
    ip6_ptr
in_device: ifa_list
in_ifaddr: ifa_next ifa_local:4 ifa_address:4 ifa_prefixlen:1
inet6_dev: addr_list:16
inet6_ifaddr: addr:16 prefix_len:4 pad:4 if_list:16 peer_addr:16
neigh_table: nht
socket_alloc: socket:64 vfs_inode:64
socket: type:2 pad:6 sk
sock: __sk_common.skc_daddr:4 __sk_common.skc_rcv_saddr:4 __sk_common.skc_dport:2 \
    __sk_common.skc_family:2 __sk_common.skc_v6_daddr:16 __sk_common.skc_v6_rcv_saddr:16
inet_sock: sk:64 inet_sport:2
"""
CHAINED = (
    COMMON
    + """
neigh_hash_table: hash_buckets hash_shift:4
neighbour: next dev primary_key:4 nud_state:1 ha:8
"""
)
HLIST = (
    COMMON
    + """
neigh_hash_table: hash_heads hash_shift:4
neighbour: hash:16 dev primary_key:4 nud_state:1 ha:8
"""
)


class Network:
    """A namespace with the devices lo and eth0."""

    def __init__(self, layouts: str = CHAINED) -> None:
        self.objects = Objects(layouts)
        self.kernel = self.objects.kernel
        self.address = self.objects.make("net")
        self.lo = self._device("lo", 772, 1)
        self.eth0 = self._device("eth0", 1, 2)
        self.link([self.lo, self.eth0])

    def _device(self, name: str, kind: int, number: int) -> int:
        hardware = self.objects.reserve(8)
        self.kernel.memory.write(hardware, bytes([0x52, 0x54, 0, 1, 2, number]))
        return self.objects.make(
            "net_device",
            name=name,
            type=kind,
            ifindex=number,
            addr_len=6,
            dev_addr=hardware,
            mtu=1500,
            flags=0x1003,
        )

    def link(self, devices: list[int]) -> None:
        at = self.kernel.offset("net_device.dev_list")
        self.objects.link(self.address, [device + at for device in devices])

    def addresses(self, device: int, *found: tuple[str, str, int]) -> list[int]:
        """Gives a device IPv4 addresses: local, of the other end, and the prefix."""
        made: list[int] = []
        for local, other, prefix in reversed(found):
            at = self.objects.make(
                "in_ifaddr",
                ifa_next=made[0] if made else 0,
                ifa_local=int.from_bytes(bytes(map(int, local.split("."))), "little"),
                ifa_address=int.from_bytes(bytes(map(int, other.split("."))), "little"),
                ifa_prefixlen=prefix,
            )
            made.insert(0, at)
        inside = self.objects.make("in_device", ifa_list=made[0])
        self.objects.set(device, "net_device", ip_ptr=inside)
        return made

    def table(self, buckets: list[list[int]]) -> None:
        """The ARP table: in each bucket neighbours by the last byte of their address."""
        bits = (len(buckets) - 1).bit_length()
        word = self.kernel.word
        heads = self.objects.reserve(len(buckets) * word)
        is_hlist = self.kernel.has("neighbour.hash")
        name = "hash_heads" if is_hlist else "hash_buckets"
        table = self.objects.make("neigh_hash_table", hash_shift=bits, **{name: heads})
        self.objects.symbols(arp_tbl=self.objects.make("neigh_table", nht=table))
        self.entries = []
        for i, bucket in enumerate(buckets):
            at = heads + i * word
            for last in bucket:
                key = int.from_bytes(bytes([10, 0, 0, last]), "little")
                made = self.objects.make(
                    "neighbour", dev=self.eth0, primary_key=key, nud_state=2, ha=0x665544332211
                )
                self.kernel.memory.number(at, made, word)
                at = made
                self.entries.append(made)

    def devices(self) -> list[network.Device]:
        return network.devices(self.kernel, self.address)


def test_devices() -> None:
    made = Network()
    made.addresses(made.lo, ("127.0.0.1", "127.0.0.1", 8))
    made.addresses(made.eth0, ("10.0.0.1", "10.0.0.1", 24), ("10.5.0.1", "10.5.0.2", 32))
    inside = made.objects.make("inet6_dev")
    node = made.kernel.offset("inet6_ifaddr.if_list")
    six = made.objects.make("inet6_ifaddr", prefix_len=64)
    made.kernel.memory.write(six, bytes.fromhex("fe80" + "00" * 13 + "01"))
    made.objects.link(inside, [six + node])
    made.objects.set(made.eth0, "net_device", ip6_ptr=inside)
    lo, eth0 = made.devices()
    assert lo == network.Device(
        made.lo,
        "lo",
        1,
        0x1003,
        1500,
        "52:54:00:01:02:01",
        [Address("127.0.0.1", 8, None)],
    )
    assert eth0.addresses == [
        Address("10.0.0.1", 24, None),
        Address("10.5.0.1", 32, "10.5.0.2"),
        Address("fe80::1", 64, None),
    ]
    assert made.kernel.warnings == []


def test_a_kernel_without_ipv6() -> None:
    made = Network(CHAINED.replace("ip6_ptr", ""))
    assert [one.name for one in made.devices()] == ["lo", "eth0"]
    assert made.kernel.warnings == []


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ("ip_ptr", "IPv4 addresses of the network device"),
        ("ip6_ptr", "the list at"),
        ("dev_addr", "the network device at"),
    ],
)
def test_a_damaged_device(member: str, problem: str) -> None:
    made = Network()
    made.objects.set(made.lo, "net_device", **{member: NOWHERE})
    names = [one.name for one in made.devices()]
    assert names == (["eth0"] if member == "dev_addr" else ["lo", "eth0"])
    (warning,) = made.kernel.warnings
    assert warning.startswith(problem)


def test_addresses_in_a_loop() -> None:
    made = Network()
    first, second = made.addresses(
        made.lo, ("10.0.0.1", "10.0.0.1", 8), ("10.0.0.2", "10.0.0.2", 8)
    )
    made.objects.set(second, "in_ifaddr", ifa_next=first)
    assert len(made.devices()[0].addresses) == 2
    assert "loops back" in made.kernel.warnings[0]


def test_a_long_hardware_address() -> None:
    made = Network()
    made.objects.set(made.lo, "net_device", addr_len=255)
    assert len(made.devices()[0].hardware) == 3 * 32 - 1


@pytest.mark.parametrize("layouts", [CHAINED, HLIST])
def test_neighbours(layouts: str) -> None:
    made = Network(layouts)
    made.table([[1, 2], [], [3], []])
    found = network.neighbours(made.kernel)
    assert [one.address for one in found] == made.entries
    assert found[0] == network.Neighbour(
        made.entries[0], "10.0.0.1", "ETHER", "11:22:33:44:55:66", "eth0", "REACHABLE"
    )
    assert made.kernel.warnings == []


@pytest.mark.parametrize("layouts", [CHAINED, HLIST])
def test_neighbours_in_a_loop(layouts: str) -> None:
    made = Network(layouts)
    made.table([[1, 2], [3]])
    # The second one leads back to the first.
    made.kernel.memory.number(made.entries[1], made.entries[0], 8)
    assert len(network.neighbours(made.kernel)) >= 2
    assert "loops back" in made.kernel.warnings[0]


@pytest.mark.parametrize("layouts", [CHAINED, HLIST])
def test_a_damaged_neighbour(layouts: str) -> None:
    made = Network(layouts)
    made.table([[1], [2]])
    made.objects.set(made.entries[0], "neighbour", dev=NOWHERE)
    assert [one.ip for one in network.neighbours(made.kernel)] == ["10.0.0.2"]
    assert "cannot be read" in made.kernel.warnings[0]


@pytest.mark.parametrize("bits", [MAX_NEIGHBOUR_BITS + 1, 0xFFFFFFFF])
def test_too_many_buckets(bits: int) -> None:
    made = Network()
    made.table([[1]])
    table = made.kernel.read(made.kernel.symbol("arp_tbl"), "neigh_table.nht")
    made.objects.set(table, "neigh_hash_table", hash_shift=bits)
    with pytest.raises(AbsentError, match="the ARP table has 2"):
        network.neighbours(made.kernel)


def test_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Network()
    objects = made.objects

    def socket(kind: int, sock: int) -> int:
        """The inode of a new socket."""
        at = objects.make("socket_alloc")
        objects.set(at, "socket", type=kind, sk=sock)
        return at + made.kernel.offset("socket_alloc.vfs_inode")

    def sock(family: int, port: int = 0) -> int:
        at = objects.make("inet_sock", inet_sport=int.from_bytes(port.to_bytes(2, "big"), "little"))
        objects.set(
            at,
            "sock",
            __sk_common__skc_family=family,
            __sk_common__skc_rcv_saddr=0x0100007F,
            __sk_common__skc_dport=0x5000,
        )
        return at

    inodes = [
        socket(1, sock(2, 8080)),
        socket(2, sock(10, 53)),
        socket(1, sock(1)),
        socket(77, sock(99)),
        socket(1, 0),
        socket(1, NOWHERE),
        NOWHERE,
    ]
    files = [File(fd, 0, 0, inode, "SOCK", "socket:[1]") for fd, inode in enumerate(inodes)]
    # A descriptor of O_PATH for a socket of a file system.
    files.append(File(50, 0, 0, inodes[0], "SOCK", "/run/socket"))
    monkeypatch.setattr(network, "open_files", lambda *_: {1: OpenFiles("/", "/", files)})
    found = network.sockets(made.kernel, [])[1]
    assert [(one.fd, one.family, one.type) for one in found] == [
        (0, "INET", "STREAM"),
        (1, "INET6", "DGRAM"),
        (2, "UNIX", "STREAM"),
        (3, "99", "77"),
        (4, "", "STREAM"),
    ]
    assert found[0].source == Endpoint("127.0.0.1", 8080)
    assert found[0].destination == Endpoint("0.0.0.0", 80)
    assert found[1].source == Endpoint("::", 53)
    assert found[2].source is None
    assert len(made.kernel.warnings) == 2


def test_overlapping_devices() -> None:
    made = Network()
    overlapping(made.kernel, made.address + made.kernel.offset("net.dev_base_head"))
    made.kernel.memory.reads = 0
    assert len(network.devices(made.kernel, made.address)) <= 1
    # The members of one device are read.
    assert made.kernel.memory.reads - made.kernel.memory.walked < 300
    assert any("the struct net_device at" in text for text in made.kernel.warnings)


def test_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_NETWORK_DEVICES", 1)
    made = Network()
    assert [one.name for one in network.devices(made.kernel, made.address)] == ["lo"]
    assert any("at most 1 structs net_device are read" in text for text in made.kernel.warnings)


def test_devices_share_the_limit_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_NETWORK_ADDRESSES", 3)
    made = Network()
    addresses = [(f"10.0.0.{i}", f"10.0.0.{i}", 8) for i in range(2)]
    made.addresses(made.lo, *addresses)
    made.addresses(made.eth0, *addresses)
    found = network.devices(made.kernel, made.address)
    assert [len(one.addresses) for one in found] == [2, 1]
    assert any("at most 3 structs in_ifaddr are read" in text for text in made.kernel.warnings)
