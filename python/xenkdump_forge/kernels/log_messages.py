"""Typical kernel messages, from boot to panic."""

from __future__ import annotations

import random

from .facts import Facts
from .printk import Line

_BOOT = (
    (6, "Command line: root=/dev/xvda1 ro console=hvc0 earlyprintk=xen"),
    (6, "Xen: [mem 0x0000000000000000-0x000000000009efff] usable"),
    (6, "Xen: [mem 0x000000000009f000-0x00000000000fffff] reserved"),
    (6, "Xen: [mem 0x0000000000100000-0x000000001fffffff] usable"),
    (6, "Hypervisor detected: Xen PV"),
    (6, "tsc: Detected {mhz}.000 MHz processor"),
    (6, "Booting paravirtualized kernel on Xen"),
    (5, "Xen version: 4.17 (preserve-AD)"),
    (6, "rcu: Hierarchical RCU implementation."),
    (6, "Console: colour VGA+ 80x25"),
    (6, "printk: console [hvc0] enabled"),
    (
        6,
        "Calibrating delay loop (skipped), value from the timer frequency.. {bogo} BogoMIPS",
    ),
    (6, "pid_max: default: 32768 minimum: 301"),
    (6, "LSM: Security Framework initializing"),
    (6, "Mount-cache hash table entries: 1024 (order: 1, 8192 bytes, linear)"),
    (6, "smp: Bringing up secondary CPUs ..."),
    (6, "installing Xen timer for CPU 1"),
    (6, "smp: Brought up 1 node, 2 CPUs"),
    (6, "Grant table initialized"),
    (6, "xen:balloon: Initialising balloon driver"),
    (6, "NET: Registered PF_NETLINK/PF_ROUTE protocol family"),
    (6, "xen:events: Using FIFO-based ABI"),
    (6, "ACPI: Interpreter enabled"),
    (4, "ACPI: [Firmware Bug]: BIOS _OSI(Linux) query ignored"),
    (6, "SCSI subsystem initialized"),
    (6, "clocksource: Switched to clocksource xen"),
    (6, "TCP established hash table entries: 4096 (order: 3, 32768 bytes, linear)"),
    (6, "xen_netfront: Initialising Xen virtual ethernet driver"),
    (6, "EXT4-fs (xvda1): mounted filesystem with ordered data mode. Quota mode: none."),
    (6, "Freeing unused kernel image (initmem) memory: 2684K"),
    (6, "Write protecting the kernel read-only data: 26624k"),
    (6, "systemd[1]: Detected virtualization xen."),
    (4, "systemd[1]: System time before build time, advancing clock."),
)


def boot(facts: Facts, banner: str, rng: random.Random, count: int) -> list[Line]:
    """The banner, the boot messages, and ``count`` later ones."""
    lines = [Line(0.0, 5, banner.rstrip("\n"))]
    at = 0.0
    for level, text in _BOOT:
        at += rng.random() * 0.08
        lines.append(Line(at, level, text.format(mhz=facts.mhz, bogo=f"{facts.mhz * 2}.00")))
    for n in range(count):
        at += (facts.uptime - 5 - at) * rng.random() / 40
        kind = n % 4
        if kind == 0:
            text = f'audit: type=1400 audit({n}): apparmor="STATUS" operation="profile_load"'
        elif kind == 1:
            text = f"xenbr0: port {n % 3 + 1}(vif{n}.0) entered forwarding state"
        elif kind == 2:
            text = f"xen-blkback: backend/vbd/{n}/51712: using 2 queues, protocol 1 (x86_64-abi)"
        else:
            text = f"eth0: link up, {n}00Mbps" + ", flow control rx" * (n % 5)
        lines.append(Line(at, 6 if kind else 5, text))
    return lines
