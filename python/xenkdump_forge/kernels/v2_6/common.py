"""A running Linux 2.6.16 or 2.6.18 under Xen: the code for both i386 and x86_64."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from ...memory import p2m
from ...memory.guest import Guest
from ...memory.machine import PAGE
from ..base import STACK_END_MAGIC, Kernel
from ..facts import Facts
from ..image import Image
from ..modules import Source
from ..printk import Line
from ..task_table import Job
from ..tasks import Task
from ..view import View

_GOLDEN = {4: 0x9E370001, 8: 0x9E37FFFFFFFC0001}
_PIDTYPES = 4
_PIDTYPE_PID, _PIDTYPE_TGID = 0, 1
_HASH_BITS = 8


class Linux26(Kernel):
    """thread_info is at the foot of an 8 KiB stack, the log is plain text."""

    stack_size = 2 * PAGE
    states: ClassVar = {"R": 0, "S": 1, "D": 2, "T": 4, "Z": 0}
    #: Fixed addresses of tasks: pid -> (task_struct, stack).
    fixed_addresses: ClassVar[dict[int, tuple[int, int]]] = {}
    machine_name: str
    module_sources: ClassVar = (
        Source("bridge", (("schedule_timeout", "br_hello_timer_expired", "kthread"),)),
        Source("netbk", (("schedule_timeout", "net_tx_action", "netbk_thread", "kthread"),)),
        Source(
            "dm_mirror",
            (
                ("schedule_timeout", "mirror_wait", "mirror_thread", "kthread"),
                ("schedule_timeout", "mirror_status_wait", "mirror_status_read", "vfs_read"),
                ("schedule_timeout", "mirror_timeout", "run_timer_softirq"),
            ),
        ),
    )

    def __init__(
        self, image: Image, guest: Guest, facts: Facts, cpus: int, rng: random.Random
    ) -> None:
        super().__init__(image, guest, facts, cpus, rng)
        self.has_thread_group = "thread_group" in self.types.struct("task_struct").by_name

    def idle_name(self, cpu: int) -> str:
        """``swapper`` on every CPU."""
        return "swapper"

    def new_stack(self, job: Job) -> int:
        """Two consecutive pages, aligned to their size."""
        if job.pid == 0 and job.cpu == 0:
            return self.image.symbol("init_thread_union")
        if job.pid in self.fixed_addresses:
            return self.fixed_addresses[job.pid][1]
        return self.guest.kmalloc(self.stack_size, self.stack_size)

    def new_task_struct(self, job: Job) -> View:
        """From a slab, or at a fixed address."""
        if job.pid in self.fixed_addresses:
            return View(
                self.guest, self.types.struct("task_struct"), self.fixed_addresses[job.pid][0]
            )
        return self.new("task_struct", 16)

    def thread_info(self, task: Task) -> View:
        """At the foot of the stack."""
        return View(self.guest, self.types.struct("thread_info"), task.stack)

    def at_foot_of_stack(self) -> int:
        """thread_info, followed by STACK_END_MAGIC."""
        return self.types.sizeof("thread_info") + self.word

    def describe(self, task: Task) -> None:
        """thread_info, the start time, the scheduler's members."""
        info = self.thread_info(task)
        info.put(task=task.address, cpu=task.job.cpu, preempt_count=0, flags=0)
        info["addr_limit.seg"] = self.image.spec.page_offset if task.job.user else -1
        mark = STACK_END_MAGIC.to_bytes(self.word, "little")
        self.guest.write(task.stack + self.types.sizeof("thread_info"), mark)
        task.view["start_time.tv_sec"] = min(task.job.pid // 100, int(self.facts.uptime) // 2)
        task.view["usage.counter"] = 2
        task.view.put(oomkilladj=0, lock_depth=-1, time_slice=100, exit_signal=17)

    def link_threads(self, leader: Task, group: Sequence[Task]) -> None:
        """Through pids[] in the task (2.6.16), or thread_group (2.6.18)."""
        signal = self.new("signal_struct")
        signal["count.counter"] = len(group)
        for thread in group:
            thread.view["signal"] = signal.address
        if self.has_thread_group:
            # INIT_TASK leaves it zero, until 2.6.19.
            if not leader.idle or leader.job.cpu:
                self.link([t.view.at("thread_group") for t in group])
            return
        for thread in group:
            for kind in range(_PIDTYPES):
                thread.view[f"pids[{kind}].nr"] = thread.job.group if kind else thread.job.pid
                if kind != _PIDTYPE_TGID:
                    self.link([thread.view.at(f"pids[{kind}].pid_list")])
        self.link([t.view.at(f"pids[{_PIDTYPE_TGID}].pid_list") for t in group])

    def write_pid_hash(self) -> None:
        """Writes pid_hash, which held all tasks before there were pid namespaces."""
        word, count = self.word, 1 << _HASH_BITS
        self.assign(pidhash_shift=_HASH_BITS)
        tables = []
        for kind in range(_PIDTYPES):
            tables.append(self.guest.kmalloc(count * word))
            self.variable("pid_hash")[f"[{kind}]"] = tables[-1]
        for task in self.tasks:
            kinds = [_PIDTYPE_PID]
            if task.job.pid == task.job.group:
                kinds.append(_PIDTYPE_TGID)
            if self.has_thread_group:
                self._hash_struct_pid(task, tables[0])
            else:
                for kind in kinds:
                    at = task.view.at(f"pids[{kind}].pid_chain")
                    self._hash(tables[kind], task.job.pid, at)

    def _hash(self, table: int, number: int, node: int) -> None:
        """Adds an hlist_node to the head of its bucket."""
        bits = 8 * self.word
        value = number * _GOLDEN[self.word] & ((1 << bits) - 1)
        bucket = table + (value >> (bits - _HASH_BITS)) * self.word
        first = int.from_bytes(self.guest.read(bucket, self.word), "little")
        pair = first.to_bytes(self.word, "little") + bucket.to_bytes(self.word, "little")
        self.guest.write(node, pair)
        if first:
            self.guest.write(first + self.word, node.to_bytes(self.word, "little"))
        self.guest.write(bucket, node.to_bytes(self.word, "little"))

    def _hash_struct_pid(self, task: Task, table: int) -> None:
        """Adds a ``struct pid``, which is separate since 2.6.17."""
        pid = self.new("pid", 16)
        pid.set(nr=task.job.pid)
        pid["count.counter"] = 1
        link = task.view.at("pids[0].node")
        pid["tasks[0].first"] = link
        task.view["pids[0].pid"] = pid.address
        task.view["pids[0].node.pprev"] = pid.at("tasks[0].first")
        self._hash(table, task.job.pid, pid.at("pid_chain"))

    # The CPUs

    def boot_cpus(self, current: Sequence[Task]) -> None:
        """Writes per-cpu areas and runqueues; ``current`` are the tasks on the CPUs."""
        start, end = self.image.starts[".data..percpu"], self.image.ends[".data..percpu"]
        self.percpu = [self.guest.kmalloc(end - start, 128) for _ in current]
        for cpu, task in enumerate(current):
            self.point_at_percpu(cpu, task, self.percpu[cpu] - start)
            self.per_cpu("per_cpu__current_task", cpu)[""] = task.address
            queue = self.per_cpu("per_cpu__runqueues", cpu)
            queue.set(curr=task.address, idle=self.idle[cpu].address)
            queue.set(nr_running=int(not task.idle), nr_switches=self.rng.randrange(10**5))
        for name in ("online", "possible", "present"):
            self.variable(f"cpu_{name}_map")["bits[0]"] = (1 << self.cpus) - 1

    def point_at_percpu(self, cpu: int, task: Task, offset: int) -> None:
        """Writes the per-cpu offset of a CPU."""
        raise NotImplementedError

    # Facts

    def write_facts(self) -> None:
        """Writes utsname, times, load averages, sizes of memory."""
        facts, spec = self.facts, self.image.spec
        for name, text in facts.names(spec.release, spec.version, self.machine_name).items():
            self.variable("system_utsname")[name] = text
        boot = facts.date - int(facts.uptime)
        self.variable("xtime").set(tv_sec=facts.date, tv_nsec=123_456_789)
        self.variable("wall_to_monotonic").set(tv_sec=-boot - 1, tv_nsec=10**9 - 1)
        self.assign(
            jiffies_64=facts.jiffies,
            # Not 1 s / HZ: the PIT's frequency is not a multiple of HZ.
            tick_nsec=10**9 // facts.hz + 250,
            avenrun=facts.avenrun,
            cpu_khz=facts.mhz * 1000,
            max_low_pfn=self.guest.pages,
            max_pfn=self.guest.pages,
            end_pfn=self.guest.pages,
            end_pfn_map=self.guest.pages,
            max_mapnr=self.guest.pages,
            num_physpages=facts.memory_pages,
            totalram_pages=facts.memory_pages - 6500,
            nr_threads=len(self.tasks),
            total_forks=max((t.job.pid for t in self.tasks), default=0),
            high_memory=self.direct(self.guest.pages),
            saved_command_line="root=/dev/sda1 ro console=tty0 crashkernel=64M@32M",
        )
        cpu = self.variable("boot_cpu_data")
        cpu.set(x86=6, x86_model=8, x86_mask=6, x86_vendor_id=facts.vendor)
        cpu.set(x86_model_id=facts.model, x86_cache_size=256)
        cpu["loops_per_jiffy"] = facts.mhz * 2000 * 1000 // facts.hz // 2
        node = self.variable("contig_page_data")
        node.set(nr_zones=4, node_present_pages=facts.memory_pages)
        node.set(node_spanned_pages=facts.memory_pages, node_id=0)
        node["node_zones[0].present_pages"] = facts.memory_pages
        node["node_zones[0].spanned_pages"] = facts.memory_pages
        self.load_modules(self.module_sources)
        self.variable("init_mm")["mm_users.counter"] = 2
        self.write_pid_hash()
        self._write_sys_call_table()

    def _write_sys_call_table(self) -> None:
        table = self.variable("sys_call_table")
        names = [n for n in self.image.text.functions if n.startswith("sys_")]
        for i in range(300):
            function = self.image.text.functions[names[i % len(names)]]
            table[f"[{i}]"] = function.address

    def write_log(self, lines: list[Line]) -> None:
        """Writes plain text, each line with its level; the oldest is overwritten."""
        text = "".join(f"<{line.level}>{line.text}\n" for line in lines).encode()
        size = self.image.variables["__log_buf"].size
        buffer = bytearray(size)
        for i, byte in enumerate(text):
            buffer[i % size] = byte
        at = self.image.symbol("__log_buf")
        self.guest.write(at, bytes(buffer))
        self.assign(log_buf=at, log_buf_len=size, log_end=len(text), con_start=len(text))
        self.assign(log_start=max(0, len(text) - size), logged_chars=min(len(text), size))
        self.log = lines
        left = len(text)
        for i, line in enumerate(lines):
            if left <= size:
                self.log = lines[i:]
                break
            left -= len(f"<{line.level}>{line.text}\n".encode())

    def write_p2m(self) -> p2m.LinearList:
        """Writes the array that phys_to_machine_mapping points to."""
        entries = p2m.write_list(self.guest, sparse=False)
        self.assign(phys_to_machine_mapping=self.direct(entries.pfns[0]))
        return entries
