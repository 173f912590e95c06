"""``domains ID``, ``pcpus``, ``evtchn``, ``grants`` and ``sched`` on real hosts.

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
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.structs import CpuMask, Structs

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
        return json.loads(capsys.readouterr().out)

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


def test_pending_channels_as_in_linux(host: list[str], run: Callable[..., Any]) -> None:
    """The event words, read through the guest's own page tables."""
    *files, vmlinux = host
    shown = run("evtchn", *files)
    dump = xk.open(files[-1])
    pending = 0
    for domain in shown["domains"]:
        assert domain["abi"] == "FIFO"
        kernel = dump.domain(domain["domain"], vmlinux).kernel
        page = kernel.virtual.word(kernel.symbols["event_array"], 8)
        for channel in domain["channels"]:
            word = kernel.virtual.word(page + channel["port"] * 4, 4)
            assert channel["pending"] == bool(word >> 31)
            assert channel["masked"] == bool(word >> 30 & 1)
            pending += channel["pending"]
    assert pending > 0
    only = run("evtchn", "--pending", *files)
    assert sum(len(domain["channels"]) for domain in only["domains"]) == pending


def test_grants_as_in_linux(host: list[str], run: Callable[..., Any]) -> None:
    *files, vmlinux = host
    shown = run("grants", *files)
    assert "warnings" not in shown
    dump = xk.open(files[-1])
    for domain in shown["domains"]:
        assert domain["version"] == 1
        kernel = dump.domain(domain["domain"], vmlinux).kernel
        table = kernel.virtual.word(kernel.symbols["gnttab_shared"], 8)
        grants = {grant["ref"]: grant for grant in domain["grants"]}
        for ref in range(domain["frames"] * 512):
            entry = kernel.virtual.read(table + ref * 8, 8)
            flags = int.from_bytes(entry[:2], "little")
            assert (flags & 3 != 0) == (ref in grants)
            if ref in grants:
                grant = grants[ref]
                assert grant["type"] == "access"
                assert grant["domain"] == int.from_bytes(entry[2:4], "little")
                assert int(grant["frame"], 16) == int.from_bytes(entry[4:], "little")
                assert ("writing" in grant["flags"]) == bool(flags & 1 << 4)


def test_each_mapping_pins_a_grant(host: list[str], run: Callable[..., Any]) -> None:
    *files, _ = host
    domains = run("grants", *files)["domains"]
    mapped: dict[tuple[int, int], int] = {}
    for domain in domains:
        for one in domain["maps"]:
            key = one["domain"], one["ref"]
            mapped[key] = mapped.get(key, 0) + one["host"] + one["device"]
    pinned = {
        (domain["domain"], grant["ref"]): sum(grant["pins"].values())
        for domain in domains
        for grant in domain["grants"]
        if grant["pins"]
    }
    assert pinned == mapped
    assert len(pinned) == 4


def test_frames_of_grants(host: list[str], run: Callable[..., Any]) -> None:
    """A grant in use has the machine frame to which the guest's P2M maps what it offers."""
    *files, _ = host
    dump = xk.open(files[-1])
    kinds = {domain["id"]: domain["kind"] for domain in run("domains", *files)["domains"]}
    seen = set()
    for domain in run("grants", "--active", *files)["domains"]:
        kind = kinds[domain["domain"]]
        for grant in domain["grants"]:
            frame, mfn = int(grant["frame"], 16), int(grant["mfn"], 16)
            if kind == "pv":
                assert frame == mfn
            else:
                host_domain = dump.hypervisor.domain(domain["domain"])
                assert host_domain.nested.p2m.resolve(frame) == mfn
            seen.add(kind)
    assert "pv" in seen


def test_run_queues(host: list[str], run: Callable[..., Any]) -> None:
    """What waits is what is runnable, in the order of the credit; the load is their number."""
    *files, _ = host
    (queue,) = run("sched", *files)["run_queues"]
    assert (queue["scheduler"], queue["cpus"]) == ("credit2", "0-1")
    vcpus = run("vcpus", *files)["vcpus"]

    def ids(state: str) -> set[tuple[int, int]]:
        return {(vcpu["domain"], vcpu["id"]) for vcpu in vcpus if vcpu["state"] == state}

    waiting = [(unit["domain"], unit["vcpu"]) for unit in queue["waiting"]]
    assert set(waiting) == ids("runnable")
    credit = [unit["credit"] for unit in queue["waiting"]]
    assert credit == sorted(credit, reverse=True)
    units = [one["unit"] for one in queue["running"]]
    running = [unit for unit in units if unit["domain"] != 0x7FFF]
    assert {(unit["domain"], unit["vcpu"]) for unit in running} == ids("running")
    assert queue["load"] == len(waiting) + len(running)
    assert {unit["weight"] for unit in (*running, *queue["waiting"])} == {256}
    assert queue["problem"] is None


def test_pcpus(host: list[str], run: Callable[..., Any]) -> None:
    *files, _ = host
    _, xen_syms, vmcore = files
    shown = run("pcpus", *files)
    assert "warnings" not in shown
    stacks = run("bt", "--hypervisor", xen_syms, vmcore)["pcpus"]
    vcpus = {vcpu["vcpu"]: vcpu for vcpu in run("vcpus", "--all", *files)["vcpus"]}
    for row, other in zip(shown["pcpus"], stacks, strict=True):
        current = row["current"]
        assert row["pcpu"] == other["pcpu"]
        assert current["vcpu"] == other["vcpu"]
        assert (current["domain"], current["id"]) == (other["domain"], other["vcpu_id"])
        assert row["is_idle"] == (current["domain"] == 0x7FFF)
        assert row["cr3"] == other["cr3"]
        low, high = (int(end, 16) for end in row["stack"])
        assert high - low == 0x8000
        assert low <= int(other["registers"]["rsp"], 16) < high
        # The registers of the vCPU that is loaded are on the stack of the idle pCPU.
        if row["loaded"] is not None:
            assert row["is_idle"]
            found = vcpus[row["loaded"]["vcpu"]]
            assert found["registers_from"].startswith(f"pCPU {row['pcpu']}'s Xen stack")
        assert (row["idle"]["domain"], row["idle"]["id"]) == (0x7FFF, row["pcpu"])
        assert row["apic_id"] == row["pcpu"]
    crashed = next(row for row in shown["pcpus"] if row["pcpu"] == 1)
    assert crashed["softirq_names"] == ["TIMER_SOFTIRQ", "TASKLET_SOFTIRQ"]


#: Handlers of timers that every host has: of calibration, and of the scheduler.
HANDLERS = {"time_calibration", "plt_overflow", "s_timer_fn"}


def test_timers(host: list[str], run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    *files, _ = host
    shown = run("pcpus", "--timers", *files)
    assert "warnings" not in shown
    every = [timer for row in shown["pcpus"] for timer in row["timers"]]
    assert {timer["symbol"] for timer in every} >= HANDLERS
    vcpus = {vcpu["vcpu"]: vcpu for vcpu in run("vcpus", "--all", *files)["vcpus"]}
    for row in shown["pcpus"]:
        expiries = [timer["expires"] for timer in row["timers"]]
        assert expiries == sorted(expiries)
        for timer in row["timers"]:
            assert (timer["where"], timer["offset"], timer["problem"]) == ("heap", 0, None)
            # Those that are not due yet are set for seconds; the crash took some milliseconds.
            assert -50e6 < timer["expires"] - shown["time"]["ns"] < 60e9
            # A vCPU's timer is in its struct, and on the pCPU where the vCPU ran last.
            if timer["symbol"] == "vcpu_singleshot_timer_fn":
                assert vcpus[timer["data"]]["pcpu"] == row["pcpu"]
                assert 0 < int(timer["timer"], 16) - int(timer["data"], 16) < 0x1000
    pcpus = [row["timers"] for row in shown["pcpus"]]

    def without(_: XenHost) -> Structs:
        raise xk.AbsentError("no DWARF")

    monkeypatch.setattr(XenHost, "structs", property(without))
    inferred = run("pcpus", "--timers", *files)
    assert [row["timers"] for row in inferred["pcpus"]] == pcpus
    assert any("timers form heaps" in text for text in inferred["warnings"])


def test_held_locks(host: list[str], run: Callable[..., Any]) -> None:
    """dom0 crashes in domain_shutdown(), which holds its shutdown_lock; nothing else is held."""
    *files, _ = host
    shown = run("pcpus", "--locks", *files)
    assert shown["locks"] == []
    assert [row["locks"] for row in shown["pcpus"]] == [[], []]
    dom0, *others = shown["domains"]
    (lock,) = dom0["locks"]
    assert (lock["name"], lock["mode"], lock["cpus"], lock["waiters"]) == (
        "shutdown_lock",
        "locked",
        [],
        0,
    )
    assert [domain["locks"] for domain in others] == [[], []]
    in_full = run("domains", *files, "0")["domains"][0]
    assert in_full["details"]["locks"] == dom0["locks"]
    # The pCPU that crashed is within it.
    (stack,) = (
        row
        for row in run("bt", "--hypervisor", files[1], files[2])["pcpus"]
        if any(frame["symbol"] == "domain_shutdown" for frame in row["frames"])
    )
    assert stack["domain"] == 0


def test_pcpus_without_debug_information(dump_file: DumpFile, run: Callable[..., Any]) -> None:
    vmcore = dump_file("xen417-three-domains/vmcore")
    xen_syms = dump_file("xen-syms-4.17-amd64")
    shown = run("pcpus", "--xen-syms", xen_syms, vmcore)
    assert any("softirqs are not known" in text for text in shown["warnings"])
    first, second = shown["pcpus"]
    assert (first["current"]["domain"], first["current"]["id"]) == (0, 1)
    assert second["is_idle"]
    assert (second["loaded"]["domain"], second["loaded"]["id"]) == (0, 0)
    assert first["softirqs"] is None
    alone = run("pcpus", vmcore)["pcpus"]
    assert [row["current"] for row in alone] == [first["current"], second["current"]]
    assert [row["per_cpu"] for row in alone] == [None, None]


def test_a_domain_in_full(host: list[str], run: Callable[..., Any]) -> None:
    *files, _ = host
    shown = run("domains", *files, "0", "1", "2")
    listed = run("domains", *files)["domains"]
    channels = {domain["domain"]: domain for domain in run("evtchn", *files)["domains"]}
    vcpus = run("vcpus", *files)["vcpus"]
    for row, brief in zip(shown["domains"], listed, strict=True):
        details = row.pop("details")
        assert row == brief
        own = [vcpu for vcpu in vcpus if vcpu["domain"] == row["id"]]
        for name in ("id", "vcpu", "pcpu", "state"):
            assert [vcpu[name] for vcpu in details["vcpus"]] == [vcpu[name] for vcpu in own]
        for vcpu in details["vcpus"]:
            assert vcpu["online"] == (vcpu["state"] != "offline")
            assert ("blocked" in vcpu["pause_flags"]) == (vcpu["state"] == "blocked")
            assert {vcpu["hard_affinity"], vcpu["soft_affinity"]} == {"all", "0-1"}
        # A pCPU that has state of a vCPU has state of its domain.
        dirty = {vcpu["dirty_pcpu"] for vcpu in details["vcpus"]} - {None}
        assert details["dirty_pcpus"] == str(CpuMask(sum(1 << pcpu for pcpu in dirty), 64))
        running = [vcpu for vcpu in details["vcpus"] if vcpu["state"] == "running"]
        assert all(vcpu["dirty_pcpu"] == vcpu["pcpu"] for vcpu in running)
        for vcpu in details["vcpus"]:
            # A vCPU that sleeps has nothing to do, and is woken by events.
            if vcpu["state"] == "blocked":
                assert (vcpu["upcall_pending"], vcpu["upcall_masked"]) == (False, False)
            assert vcpu["polls"] == 0
        assert details["nodes"] == "0"
        assert details["references"] > 0
        assert ("writable_pagetables" in details["vm_assists"]) == (row["kind"] == "pv")
        assert "runstate_update_flag" in details["vm_assists"]
        assert details["max_vcpus"] == row["vcpus"]
        assert details["max_pages"] >= row["pages"]
        assert details["dying"] == "alive"
        assert details["privileged"] == (row["id"] == 0)
        assert details["shutdown_reason"] == ("crash" if row["id"] == 0 else None)
        used = [one for one in channels[row["id"]]["channels"] if one["state"] != "reserved"]
        assert details["event_channels"] == len(used)
        assert details["event_channel_abi"] == channels[row["id"]]["abi"]
        assert details["grant_version"] == 1
        assert details["p2m"] == ("PV" if row["kind"] == "pv" else "NPT")
        assert ("hap" in details["paging"]) == (row["kind"] == "pvh")


def test_a_domain_in_full_without_debug_information(
    dump_file: DumpFile, run: Callable[..., Any], capsys: Capture
) -> None:
    vmcore = dump_file("xen417-three-domains/vmcore")
    shown = run("domains", vmcore, "domu1")
    (text,) = shown["warnings"]
    assert "DWARF" in text
    details = shown["domains"][0]["details"]
    assert (details["p2m"], details["dying"], details["event_channel_abi"]) == ("PV", None, None)
    assert main(["domains", vmcore, "1"]) == 0
    printed = capsys.readouterr().out
    assert "        DOMAIN: 1\n" in printed
    assert "STATE:" not in printed
    found = run("domains", vmcore, "1", "77", status=1)
    assert [domain["id"] for domain in found["domains"]] == [1]
    assert "no domain 77" in found["failure"]


def test_the_inferred_paging_mode(dump_file: DumpFile, run: Callable[..., Any]) -> None:
    vmcore, xen_syms = dump_file("xen420-pv-pvh/vmcore"), dump_file("xen-syms-4.20")
    (by_types,) = run("domains", "--xen-syms", xen_syms, vmcore, "2")["domains"]
    shown = run("domains", vmcore, "2")
    details = shown["domains"][0]["details"]
    assert (details["p2m"], details["paging"]) == ("NPT", by_types["details"]["paging"])
    assert any("the paging mode is inferred" in text for text in shown["warnings"])


@pytest.mark.parametrize("command", ["evtchn", "grants", "sched"])
def test_inferred_layouts(command: str, host: list[str], run: Callable[..., Any]) -> None:
    """Without DWARF the answers are the same, and a warning says what they rest on."""
    *files, _ = host
    by_types = run(command, *files)
    inferred = run(command, files[-1])
    known = set(by_types.pop("warnings", []))
    (text,) = (text for text in inferred.pop("warnings") if text not in known)
    assert "the layout is inferred: " in text
    assert inferred == by_types


@pytest.mark.parametrize("name", ["xen417-three-domains", "xen417-dom0"])
def test_inferred_layouts_of_other_hosts(
    name: str, dump_file: DumpFile, run: Callable[..., Any]
) -> None:
    """With the symbols of a stripped xen-syms, and without any."""
    vmcore, xen_syms = dump_file(f"{name}/vmcore"), dump_file("xen-syms-4.17-amd64")
    for command in ("evtchn", "grants", "sched"):
        alone = run(command, vmcore)
        assert run(command, "--xen-syms", xen_syms, vmcore) == alone
        assert "the layout is inferred" in alone["warnings"][-1]
        assert "problem" not in json.dumps(alone).replace('"problem": null', "")


@pytest.mark.parametrize("command", ["evtchn", "grants", "sched"])
def test_without_a_host(command: str, dump_file: DumpFile, capsys: Capture) -> None:
    assert main([command, dump_file("bare-x86_64/vmcore")]) == 1
    assert "not the dump of a Xen host" in capsys.readouterr().err
    assert main([command, dump_file("xen417-three-domains/domu1.core")]) == 1
    assert "the file of one domain" in capsys.readouterr().err
