"""The plan: the content of a synthetic dump, from the model that it is written from.

Addresses, frames and registers are hexadecimal strings, counts are numbers. Tests compare a reader
with it; nothing is read back from the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from .elf.notes import Note
from .kernels.base import Kernel
from .kernels.tasks import Task
from .memory.guest import Guest
from .xen.xen64 import Pcpu

Json = dict[str, Any]


def registers(values: Mapping[str, int]) -> Json:
    """Registers by name."""
    return {name: hex(value) for name, value in values.items()}


def task(kernel: Kernel, task_: Task) -> Json:
    """A task with its frames, innermost first, and its user frame last, if any."""
    frames: list[Json] = []
    for frame in task_.frames:
        # The call before a return address may be the last instruction of its function.
        inside = frame.pc if frame.interrupted else frame.pc - 1
        frames.append(
            {
                "pc": hex(frame.pc),
                "sp": hex(frame.sp),
                "slot": None if frame.slot is None else hex(frame.slot),
                "symbol": frame.symbol,
                "function": kernel.text.name_at(inside),
                "label": kernel.nearest(frame.pc),
                "module": kernel.module_at(frame.pc),
                "interrupted": frame.interrupted,
            }
        )
    out: Json = {
        "task": hex(task_.address),
        "pid": task_.job.pid,
        "tgid": task_.job.group,
        "comm": task_.job.comm,
        "state": task_.job.state,
        "cpu": task_.job.cpu,
        "parent": task_.job.parent,
        "on_cpu": task_.registers is not None,
        "stack": hex(task_.stack),
        "mm": hex(task_.mm),
        "frames": frames,
    }
    if task_.root:
        out["pgd"] = hex(task_.root)
    if task_.user_registers is not None and task_.user_registers_at is not None:
        regs = task_.user_registers
        frames.append(
            {
                "pc": hex(regs[kernel.ip]),
                "sp": hex(regs[kernel.sp]),
                "slot": None,
                "symbol": None,
                "function": None,
                "interrupted": True,
                "user": True,
            }
        )
        out["user_registers"] = registers(regs)
        out["user_registers_at"] = hex(task_.user_registers_at)
    if task_.switched_at is not None:
        out["switched_at"] = hex(task_.switched_at)
    if task_.registers is not None:
        out["registers"] = registers(task_.registers)
    return out


def entry(guest: Guest, pfn: int) -> tuple[str, int | None]:
    """The kind of a P2M entry, and its frame, if any."""
    value = int(guest.p2m[pfn]) if pfn < guest.pages else guest.invalid
    if value == guest.invalid:
        return "invalid", None
    if value & guest.foreign_bit:
        return "foreign", value & ~guest.foreign_bit
    if value & guest.identity_bit:
        return "identity", value & ~guest.identity_bit
    return "frame", value


def p2m_samples(guest: Guest, count: int = 300) -> list[Json]:
    """The first and last entries, random ones, and those around special ones."""
    wanted = {0, 1, guest.pages - 1, guest.max_pfn - 1}
    if guest.max_pfn > guest.pages:
        wanted |= {guest.pages, (guest.pages + guest.max_pfn) // 2}
    wanted |= {guest.rng.randrange(guest.pages) for _ in range(count)}
    bits = guest.foreign_bit | guest.identity_bit
    special = [pfn for pfn, value in enumerate(guest.p2m) if value & bits]
    edges = [pfn for pfn, before in zip(special, [-1, *special], strict=False) if pfn - 1 != before]
    edges += [pfn for pfn, after in pairwise(special) if pfn + 1 != after]
    for pfn in edges[:200]:
        wanted |= {max(pfn - 1, 0), pfn, min(pfn + 1, guest.pages - 1)}
    out = []
    for pfn in sorted(wanted):
        kind, mfn = entry(guest, pfn)
        out.append({"pfn": hex(pfn), "kind": kind, "mfn": None if mfn is None else hex(mfn)})
    return out


def p2m_counts(guest: Guest) -> Json:
    """The number of entries of each kind, and of runs of consecutive frames."""
    counts = {"frame": 0, "invalid": 0, "foreign": 0, "identity": 0}
    bits = guest.foreign_bit | guest.identity_bit
    runs, before = 0, -1
    for pfn, value in enumerate(guest.p2m):
        if value & bits:
            counts[entry(guest, pfn)[0]] += 1
            before = -1
        else:
            runs += value != before + 1 or before < 0
            before = value
    counts["frame"] = guest.pages - sum(counts.values())
    counts["invalid"] += guest.max_pfn - guest.pages
    return {**counts, "runs": runs}


def header(kernel: Kernel, panic_task: Task | None) -> Json:
    """What ``sys`` prints."""
    facts, spec = kernel.facts, kernel.image.spec
    out: Json = {
        "cpus": kernel.cpus,
        "date": facts.date,
        "uptime": facts.uptime,
        "load_average": list(facts.load),
        "tasks": len(kernel.tasks) + len(kernel.idle),
        "nodename": facts.nodename,
        "release": spec.release,
        "version": spec.version,
        "mhz": facts.mhz,
        "memory_pages": facts.memory_pages,
        "banner": spec.banner,
    }
    if panic_task is not None:
        out["panic"] = facts.panic
        out["pid"] = panic_task.job.pid
        out["command"] = panic_task.job.comm
        out["task"] = hex(panic_task.address)
        out["cpu"] = panic_task.job.cpu
    return out


def domain(kernel: Kernel, panic_task: Task | None) -> Json:
    """A domain with its kernel."""
    guest = kernel.guest
    symbols = {s.name: hex(s.address) for s in kernel.image.symbols}
    wanted = ("init_task", "linux_banner", "schedule", "max_pfn", "phys_to_machine_mapping")
    return {
        "word": guest.word,
        "paging": kernel.paging.name,
        "max_pfn": guest.max_pfn,
        "header": header(kernel, panic_task),
        "tasks": [task(kernel, t) for t in (*kernel.idle, *kernel.tasks)],
        "modules": [
            {
                "module": hex(module.view.address),
                "name": module.source.name,
                "base": hex(module.base),
                "size": module.size,
            }
            for module in kernel.modules
        ],
        "log": [
            {"seconds": line.seconds, "level": line.level, "text": line.text} for line in kernel.log
        ],
        "symbols": {name: symbols[name] for name in wanted if name in symbols},
        "p2m": {"counts": p2m_counts(guest), "samples": p2m_samples(guest)},
    }


def notes(notes_: Iterable[Note]) -> list[Json]:
    """The notes in file order; long ones without their content."""
    return [
        {
            "name": note.name,
            "type": hex(note.type),
            "size": len(note.desc),
            "data": note.desc.hex() if len(note.desc) <= 80 else None,
        }
        for note in notes_
    ]


def pcpus(every: Iterable[Pcpu]) -> list[Json]:
    """The guest's registers on each pCPU, and Xen's frames."""
    return [
        {
            "pcpu": p.number,
            "cr3": hex(p.cr3),
            "domain": p.domain,
            "vcpu": p.vcpu,
            "registers": registers(p.guest),
            "frames": [{"pc": hex(f.pc), "sp": hex(f.sp), "symbol": f.symbol} for f in p.frames],
        }
        for p in every
    ]
