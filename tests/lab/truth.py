"""What the guests reported about themselves, as reference data."""

import re
from pathlib import Path
from typing import Any

from . import spin
from .scenarios import Guest, Scenario


def of_guests(folder: Path, scenario: Scenario) -> dict[str, Any]:
    """By the guests' consoles, which xenconsoled logged; dom0's is the serial one."""
    found = {}
    for guest in scenario.guests:
        name = "console.log" if guest.name == "dom0" else f"guest-{guest.name}.log"
        found[guest.name] = _guest(folder / name, guest)
    return found


def _guest(log: Path, guest: Guest) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": guest.type,
        "vcpus": guest.vcpus,
        "cpus": list(guest.cpus),
        "tasks": [],
        "spin": {
            "pc": hex(spin.loop(guest.word)),
            "registers": {name: hex(value) for name, value in spin.values(guest.word).items()},
        },
    }
    for line in log.read_text(errors="replace").splitlines():
        match line.strip().split(maxsplit=1):
            case ["LAB-VERSION", text]:
                found["banner"] = text
            case ["LAB-TASK", text]:
                pid, state, name = text.split(maxsplit=2)
                found["tasks"].append({"pid": int(pid), "state": state, "comm": name, "stack": []})
            case ["LAB-FRAME", text]:
                frame = re.match(r"([^+\s]+)\+(0x[0-9a-f]+)/0x[0-9a-f]+", text)
                if frame and found["tasks"]:
                    found["tasks"][-1]["stack"].append([frame[1], int(frame[2], 16)])
    return found
