"""``domains ID``, ``pcpus``, ``evtchn``, ``grants`` and ``runq`` on real hosts.

The guests' own kernels are the independent source: Linux keeps a struct irq_info for each of its
event channels, and the grant table's frames in its memory.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_fast.linux.kernel import Kernel
from xenkdump_fast.linux.typed import types

pytestmark = pytest.mark.real

DumpFile = Callable[[str], str]
Capture = pytest.CaptureFixture[str]

#: Hosts whose xen-syms has DWARF: dump, xen-syms, kernel of all PV and PVH guests, domains.
HOSTS = {
    "4.17": ("xen417-mixed-pcpus/vmcore", "xen417-mixed-pcpus/xen-syms", "vmlinux-6.1.0-56-amd64"),
    "4.20": ("xen420-pv-pvh/vmcore", "xen-syms-4.20", "vmlinux-6.12.117"),
}
#: enum xen_irq_type, and the state that Xen has for it.
IRQ_TYPES = {
    "IRQT_PIRQ": "pirq",
    "IRQT_VIRQ": "virq",
    "IRQT_IPI": "ipi",
    "IRQT_EVTCHN": "interdomain",
}


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest, dump_file: DumpFile) -> list[str]:
    """The options and the dump, and the kernel last."""
    vmcore, xen_syms, vmlinux = map(dump_file, HOSTS[request.param])
    return ["--xen-syms", xen_syms, vmcore, vmlinux]


@pytest.fixture
def run(capsys: Capture) -> Callable[..., Any]:
    def run(*args: str, status: int = 0) -> Any:
        assert main([*args, "--json"]) == status
        found = json.loads(capsys.readouterr().out)
        return found

    return run


class LinuxChannel(NamedTuple):
    """A struct irq_info of Linux."""

    state: str
    vcpu: int
    virq: int
    pirq: int


def linux_channels(kernel: Kernel) -> dict[int, LinuxChannel]:
    """The event channels that Linux has bound, by port."""
    (info,) = (
        found
        for found in kernel.types.graph
        if (found.kind, found.name) == ("struct", "irq_info")
        and any(member.name == "evtchn" for member in found.members)
    )
    at = {name: place.bits // 8 for name, place in types.places(info)}
    union = dict(types.places(info))["u"].type
    inner = {name: place.bits // 8 for name, place in types.places(union)}
    enum = kernel.types.graph.find("enum xen_irq_type")
    kinds = {value: name for name, value in enum.enumerators}
    head = kernel.symbols["xen_irq_list_head"]
    found: dict[int, LinuxChannel] = {}

    def number(address: int, size: int) -> int:
        return kernel.virtual.word(address, size)

    def entries() -> Iterator[int]:
        entry = number(head, 8)
        while entry != head:
            yield entry - at["list"]
            entry = number(entry, 8)

    for address in entries():
        kind = kinds[number(address + at["type"], 2)]
        port = number(address + at["evtchn"], 4)
        if port == 0 or kind not in IRQ_TYPES:
            continue
        found[port] = LinuxChannel(
            IRQ_TYPES[kind],
            number(address + at["cpu"], 2),
            number(address + at["u"] + inner["virq"], 2),
            number(address + at["u"] + inner["pirq"], 2),
        )
    return found


def test_event_channels_as_linux_knows_them(host: list[str], run: Callable[..., Any]) -> None:
    *files, vmlinux = host
    shown = run("evtchn", *files)
    assert "warnings" not in shown
    dump = xk.open(files[-1])
    compared = 0
    for domain in shown["domains"]:
        kernel = dump.domain(domain["domain"], vmlinux).kernel
        linux = linux_channels(kernel)
        ports = {channel["port"]: channel for channel in domain["channels"]}
        assert len(linux) >= 4
        for port, expected in linux.items():
            channel = ports[port]
            if expected.state == "interdomain" and channel["state"] == "virq":
                # Linux does not tell what a daemon has bound through /dev/xen/evtchn.
                assert channel["virq_name"] in ("dom_exc", "con_ring")
                continue
            assert channel["state"] == expected.state
            assert channel["vcpu"] == expected.vcpu, port
            assert channel["virq"] == (expected.virq if expected.state == "virq" else None)
            assert channel["pirq"] == (expected.pirq if expected.state == "pirq" else None)
            compared += 1
        # Port 0 is Xen's, and what else Linux has no interrupt for is closed or of user space.
        assert ports[0]["state"] == "reserved"
        assert set(ports) - set(linux) == {0}
    assert compared > 50
