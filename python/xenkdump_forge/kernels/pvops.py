"""A running pvops kernel on Xen: the code for both 4.19 on i386 and 6.1 on x86_64."""

from __future__ import annotations

from collections.abc import Sequence

from ..memory import p2m
from ..memory.machine import PAGE
from .base import Kernel
from .tasks import Task


class Pvops(Kernel):
    """Threads are in signal_struct, the P2M list is in vmalloc space."""

    #: utsname's machine.
    machine: str
    #: The symbol of the top page table.
    top_table: str
    #: xen_max_p2m_pfn: the limit of the list, not its length.
    max_p2m_pfn: int
    #: The address of the linear list.
    p2m_vaddr: int

    def link_threads(self, leader: Task, group: Sequence[Task]) -> None:
        """Through signal_struct since 3.14, and thread_group until 6.7."""
        signal = self.variable("init_signals") if leader.idle else self.new("signal_struct")
        signal["nr_threads"] = signal["live.counter"] = len(group)
        for thread in group:
            thread.view["signal"] = signal.address
        if not leader.idle or leader.job.cpu == 0:
            self.link([signal.at("thread_head"), *(t.view.at("thread_node") for t in group)])
        self.link([t.view.at("thread_group") for t in group])

    def boot_cpus(self, current: Sequence[Task]) -> None:
        """Writes per-cpu areas and runqueues; ``current`` are the tasks on the CPUs."""
        start = self.image.starts[".data..percpu"]
        self.percpu = [self.new_percpu_area() for _ in current]
        for cpu, task in enumerate(current):
            task.view["on_cpu"] = 1
            offset = self.percpu[cpu] - start
            self.variable("__per_cpu_offset")[f"[{cpu}]"] = offset
            self.per_cpu("cpu_number", cpu)[""] = cpu
            self.per_cpu("this_cpu_off", cpu)[""] = offset
            self.per_cpu("xen_vcpu_id", cpu)[""] = cpu
            self.per_cpu("current_task", cpu)[""] = task.address
            self.boot_cpu(cpu, task)
            rq = self.per_cpu("runqueues", cpu)
            rq.set(curr=task.address, idle=self.idle[cpu].address, cpu=cpu, online=1)
            rq.set(nr_running=0 if task.idle else 1, nr_switches=self.rng.randrange(10**6))
            rq["clock"] = round(self.facts.uptime * 1e9)
        for name in ("possible", "online", "present", "active"):
            mask = self.variable(f"__cpu_{name}_mask")
            for first in range(0, self.cpus, 8 * self.word):
                count = min(self.cpus - first, 8 * self.word)
                mask[f"bits[{first // (8 * self.word)}]"] = (1 << count) - 1
        self.assign(nr_cpu_ids=self.cpus)

    def new_percpu_area(self) -> int:
        """Allocates a per-cpu area."""
        raise NotImplementedError

    def boot_cpu(self, cpu: int, task: Task) -> None:
        """Writes the per-cpu variables that only this version has."""
        raise NotImplementedError

    def write_facts(self) -> None:
        """Writes utsname, times, load averages, sizes of memory."""
        facts, spec = self.facts, self.image.spec
        uts = self.variable("init_uts_ns")
        for name, text in facts.names(spec.release, spec.version, self.machine).items():
            uts[f"name.{name}"] = text
        self.assign(
            jiffies_64=facts.jiffies,
            tick_nsec=10**9 // facts.hz,
            avenrun=facts.avenrun,
            cpu_khz=facts.mhz * 1000,
            tsc_khz=facts.mhz * 1000,
            max_pfn=self.guest.max_pfn,
            max_low_pfn=self.guest.max_pfn,
            total_forks=max((t.job.pid for t in self.tasks), default=0),
            nr_threads=len(self.tasks),
            high_memory=self.direct(self.guest.max_pfn),
        )
        cpu = self.variable("boot_cpu_data")
        cpu.set(x86=6, x86_model=85, x86_stepping=4, x86_vendor_id=facts.vendor)
        cpu.set(x86_model_id=facts.model, x86_virt_bits=48, x86_phys_bits=46)
        cpu["loops_per_jiffy"] = facts.mhz * 1000 * 1000 // facts.hz
        tk = self.variable("tk_core")
        tk["timekeeper.xtime_sec"] = facts.date
        tk["timekeeper.ktime_sec"] = int(facts.uptime)
        tk["timekeeper.wall_to_monotonic.tv_sec"] = int(facts.uptime) - facts.date
        tk["timekeeper.tkr_mono.shift"] = 24
        tk["timekeeper.tkr_mono.mult"] = 1 << 24
        self.load_modules(self.module_sources)
        init_mm = self.variable("init_mm")
        init_mm.set(pgd=self.image.symbol(self.top_table))
        init_mm["mm_users.counter"] = 2

    def write_p2m(self) -> p2m.LinearList:
        """Writes the linear list, mapped in vmalloc space, and its variables."""
        entries = p2m.write_list(self.guest, sparse=True, shared_tail=16)
        self.guest.map(self.p2m_vaddr, entries.pfns)
        self.assign(
            xen_p2m_addr=self.p2m_vaddr,
            xen_p2m_size=len(entries.pfns) * PAGE // self.word,
            xen_max_p2m_pfn=self.max_p2m_pfn,
            xen_p2m_last_pfn=self.guest.max_pfn,
        )
        return entries

    def root_address(self) -> int:
        """The machine address of the root."""
        return self.guest.machine_address(self.image.symbol(self.top_table))
