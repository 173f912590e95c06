"""The text of ``mount``, ``net``, ``ipcs``, ``dev`` and ``swap``."""

from types import SimpleNamespace
from typing import Any

from xenkdump_fast.commands import dev, ipcs, mount, net, swap
from xenkdump_fast.commands.addresses import Program
from xenkdump_fast.linux.device_numbers import Block, Character
from xenkdump_fast.linux.disks import Disk, Requests
from xenkdump_fast.linux.files import File
from xenkdump_fast.linux.ipc import Pages, Permissions, Segment
from xenkdump_fast.linux.mounts import Mount
from xenkdump_fast.linux.network import Address, Device, Endpoint, Neighbour, Socket
from xenkdump_fast.linux.pci import Bus
from xenkdump_fast.linux.pci import Device as PciDevice
from xenkdump_fast.linux.resources import Resource
from xenkdump_fast.linux.swap import Swap
from xenkdump_fast.linux.tasks import Task

#: A name as a hostile dump may have it.
HOSTILE = "a\x1b[31m\nb"
SHOWN = r"a\x1b[31m\nb"
WIDTH = len(SHOWN)
TASK = Task(0xFFFF888000001000, 12, 12, HOSTILE, 1, 0, 0, 0, active=False, idle=False)


def test_mount() -> None:
    first = Mount(0xC1000000, 0xC1000010, 0xC2, 0xC3000000, 1, "ext4", "/dev/sda1", "/")
    second = first._replace(device=HOSTILE, path=HOSTILE, super_block=0xC4000000)
    assert list(mount.Mounts(0, 4, [first, second], None, None, None).text()) == [
        f" MOUNT   SUPERBLK TYPE {'DEVNAME':{WIDTH}} DIRNAME",
        f"c1000000 c3000000 ext4 {'/dev/sda1':{WIDTH}} /",
        f"c1000000 c4000000 ext4 {SHOWN} {SHOWN}",
    ]
    file = File(1, 0, 0xC5000000, 0xC6000000, "REG", HOSTILE)
    found = mount.Mounts(0, 4, [first, second], {0xC4000000: [file]}, {0xC3000000: [0xC7]}, None)
    text = list(found.text())
    assert text[2:6] == ["OPEN FILES:", "(none)", "DIRTY INODES", "      c7"]
    assert text[9:] == [
        "OPEN FILES:",
        " DENTRY   INODE   TYPE PATH",
        f"c5000000 c6000000 REG  {SHOWN}",
        "DIRTY INODES",
        "(none)",
    ]


def network(**shown: Any) -> list[str]:
    kernel: Any = SimpleNamespace(word=8)
    return list(net.Net(0, kernel, **shown).text())


def test_devices() -> None:
    addresses = [Address("10.0.0.1", 24, None), Address("10.1.0.1", 32, "10.1.0.2")]
    device = Device(0xFFFF888000002000, HOSTILE, 1, 3, 1500, "", addresses)
    assert network(devices=[device]) == [
        f"   NET_DEVICE     {'NAME':{WIDTH}}  IP ADDRESS(ES)",
        f"ffff888000002000  {SHOWN}  10.0.0.1, 10.1.0.1 peer 10.1.0.2",
    ]


def test_neighbours() -> None:
    one = Neighbour(0xFFFF888000003000, "10.0.0.2", "ETHER", "00:11:22:33:44:55", "eth0", "STALE")
    assert network(neighbours=[one]) == [
        "NEIGHBOUR         IP ADDRESS  HW TYPE  HW ADDRESS         DEVICE  STATE",
        "ffff888000003000  10.0.0.2    ETHER    00:11:22:33:44:55  eth0    STALE",
    ]


def test_sockets() -> None:
    at = 0xFFFF888000004000
    six = Socket(3, at, at, "INET6", "STREAM", Endpoint("fe80::1", 22), Endpoint("::", 0))
    unix = Socket(14, at, at, "UNIX", "DGRAM", None, None)
    assert network(sockets=[(TASK, [six, unix]), (TASK, [])]) == [
        f'PID: 12      TASK: ffff888000001000  CPU: 1   COMMAND: "{SHOWN}"',
        "FD      SOCKET            SOCK       FAMILY:TYPE  SOURCE-PORT           DESTINATION-PORT",
        f" 3 {at:x} {at:x} INET6:STREAM fe80:0:0:0:0:0:0:1-22 0:0:0:0:0:0:0:0-0",
        f"14 {at:x} {at:x} UNIX:DGRAM",
        "",
        f'PID: 12      TASK: ffff888000001000  CPU: 1   COMMAND: "{SHOWN}"',
        "No open sockets.",
    ]


def test_ipcs() -> None:
    segment = Segment(0xC1000000, Permissions(0x1234, 5, 1000, 0o3644), 5000, 1, None)
    assert list(ipcs.Objects(0, [segment], [], None).text()) == [
        "SHMID_KERNEL KEY      SHMID UID  PERMS BYTES NATTCH STATUS",
        "c1000000     00001234 5     1000 644   5000  1      dest locked",
        "",
        "SEM_ARRAY KEY SEMID UID PERMS NSEMS",
        "(none allocated)",
    ]
    with_pages = segment._replace(pages=Pages(0xC2000000, 2, None, 1))
    assert list(ipcs.Objects(0, [with_pages], None, None).text())[2:] == [
        "PAGES ALLOCATED/RESIDENT/SWAPPED: 2/?/1",
        "INODE: c2000000",
    ]


def devices(**shown: Any) -> list[str]:
    memory: Any = None
    return list(dev.Devices(0, Program("vmlinux", 4, memory, None, None), **shown).text())


def test_numbers() -> None:
    numbers = [
        Character(1, 0, 255, "mem", 0xC1000000, 0xC2000000, ""),
        Character(13, 0, 1, HOSTILE, 0, 0, ""),
    ]
    disk = Disk(0xC3000000, 8, 0, "sda", 0xC4000000, "sd_mod", 0)
    found = devices(
        characters=numbers,
        blocks=[Block(8, "sd"), Block(259, "blkext")],
        known=[disk, disk._replace(address=0xC5000000)],
    )
    assert found == [
        f"CHRDEV  {'NAME':{WIDTH}}    CDEV    OPERATIONS",
        f"     1  {'mem':{WIDTH}}  c1000000  c2000000",
        f"    13  {SHOWN}   (none)",
        "",
        "BLKDEV  NAME    GENDISK   OPERATIONS",
        "     8  sd      c3000000  c4000000 [sd_mod]",
        "                c5000000  c4000000 [sd_mod]",
        "   259  blkext   (none)",
    ]


def test_disks() -> None:
    disk = Disk(0xC3000000, 8, 0, "sda", 0, "", 0xC4000000)
    found = devices(disks=[(disk, Requests(3, 10)), (disk._replace(name="fd0"), None)])
    assert found == [
        "MAJOR  GENDISK   NAME  REQUEST_QUEUE  TOTAL  READ  WRITE",
        "    8  c3000000  sda   c4000000          13     3     10",
        "    8  c3000000  fd0   c4000000           ?     ?      ?",
    ]


def test_pci() -> None:
    card = PciDevice(0xC1000000, "0000:00:03.0", 0x604, 0x1B36, 0xC, "ROOT_PORT", is_bridge=True)
    found = devices(buses=[Bus(0xC2000000, 0, "0000:00", [card]), Bus(0xC3, 0xC2000000, "", [])])
    assert found == [
        "ROOT BUS BUSNAME",
        "c2000000 0000:00",
        "  PCI DEV  DO:BU:SL.FN  CLASS  PCI_ID   TYPE",
        "  c1000000 0000:00:03.0  0604  1b36:000c ROOT_PORT [BRIDGE]",
        "",
        "  PCI BUS  PARENT BUS",
        "        c3 c2000000",
    ]


def test_resources() -> None:
    ports = [Resource(0xC1000000, 0, 0, 0xFFFF, "PCI IO"), Resource(0xC2, 1, 1, 2, HOSTILE)]
    memory = [Resource(0xC3000000, 0, 0, 0xFFFFFFFFFF, "PCI mem")]
    assert devices(resources={"ports": ports, "memory": memory}) == [
        "RESOURCE    RANGE    NAME",
        "c1000000  0000-ffff  PCI IO",
        f"      c2  0001-0002  {SHOWN}",
        "",
        "RESOURCE         RANGE         NAME",
        "c3000000  00000000-ffffffffff  PCI mem",
    ]
    assert devices(resources={"ports": [], "memory": []})[0].split() == [
        "RESOURCE",
        "RANGE",
        "NAME",
    ]


def test_swap() -> None:
    one = Swap(0xC1000000, False, 40 << 20, 30 << 20, -2, HOSTILE)
    assert list(swap.Swaps(0, 4, [one]).text()) == [
        "SWAP_INFO_STRUCT  TYPE         SIZE    USED  PCT  PRI  FILENAME",
        f"c1000000          PARTITION  40960k  30720k  75%   -2  {SHOWN}",
    ]
