"""A running Linux 4.19 on i386 with PAE, on a 64-bit Xen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from ...code import stack
from ...memory.guest import Guest
from ...memory.machine import PAGE
from ...memory.paging import X86_PAE
from .. import page_tables_32, printk
from ..base import STACK_END_MAGIC
from ..facts import Facts
from ..image import Image
from ..modules import Source
from ..printk import Line
from ..pvops import Pvops
from ..task_table import Job
from ..tasks import Task
from . import functions

#: Selectors of a kernel in ring 1.
KERNEL_CS, KERNEL_SS = 0x61, 0x69
_PERCPU_FS = 0xD8

_SYSCALLS = {"sys_read": 3, "sys_write": 4, "sys_wait4": 114, "sys_poll": 168}


class Linux419(Pvops):
    """thread_info is in task_struct, the log has records, the P2M list is in vmalloc space."""

    paging = X86_PAE
    machine, top_table = "i686", "swapper_pg_dir"
    max_p2m_pfn = 0x1000000
    stack_size = 2 * PAGE
    padding = 8
    lowmem_end = 0xF5800000
    states: ClassVar = {"R": 0, "S": 1, "D": 2, "T": 4, "I": 0x402, "Z": 0x80}
    exit_zombie = 0x20
    user_cs, user_ss = 0x73, 0x7B
    frees_zombie_stacks = True

    def __init__(
        self, image: Image, guest: Guest, facts: Facts, cpus: int, rng: random.Random
    ) -> None:
        super().__init__(image, guest, facts, cpus, rng)
        top = image.spec.page_offset + guest.pages * PAGE
        self.p2m_vaddr = -(-(top + (8 << 20)) // (4 << 20)) * (4 << 20)

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """The call chains of 4.19."""
        return functions.SLEEPS

    module_sources: ClassVar = (
        Source("xen_netback", (("schedule_timeout", "xenvif_dealloc_kthread", "kthread"),)),
        Source("xenfs", (("vfs_read", "xenstored_mmap", "kthread"),)),
        Source("jbd2", (functions.IN_MODULE[2:-1],)),
    )
    sleeps_in_modules: ClassVar = {"jbd2/": functions.IN_MODULE}

    def modules_start(self) -> int:
        """In vmalloc space, after the P2M list."""
        return self.p2m_vaddr + (4 << 20)

    def new_stack(self, job: Job) -> int:
        """Two pages of the direct map: i386 had no CONFIG_VMAP_STACK."""
        if job.pid == 0 and job.cpu == 0:
            return self.image.symbol("init_thread_union")
        return self.guest.kmalloc(self.stack_size, self.stack_size)

    def user_registers(self, task: Task, syscall: str) -> dict[str, int]:
        """The registers after ``sysenter`` in the vdso."""
        rng = self.rng
        sp = rng.randrange(0xBF800000, 0xBFFFF000, 4)
        return {
            "bx": rng.randrange(0, 64),
            "cx": rng.randrange(0xBF800000, 0xBFFFF000, 4),
            "dx": rng.randrange(0, 4096),
            "si": rng.randrange(0, 4096),
            "di": rng.randrange(0xB7E00000, 0xB7F90000, 4),
            "bp": sp,
            "ax": -38 & 0xFFFFFFFF,
            "ds": 0x7B,
            "es": 0x7B,
            "fs": 0,
            "gs": 0x33,
            "orig_ax": _SYSCALLS.get(syscall, 240) if syscall else 4,
            "ip": 0xB7F7A000 + 0xD09 if syscall else rng.randrange(0xB7E00000, 0xB7F00000),
            "cs": self.user_cs,
            "flags": 0x246,
            "sp": sp,
            "ss": self.user_ss,
        }

    def describe(self, task: Task) -> None:
        """The canary, STACK_END_MAGIC, sp0."""
        task.view["usage.counter"] = 2
        task.view.put(stack_refcount__counter=int(task.stack != 0))
        if task.stack:
            task.view["stack_canary"] = self.rng.getrandbits(24) << 8
            task.view["thread.sp0"] = task.stack + self.stack_size - self.padding
            self.guest.write(task.stack, STACK_END_MAGIC.to_bytes(4, "little"))
        if task.idle and task.job.cpu == 0:
            task.view["active_mm"] = self.image.symbol("init_mm")

    def sleep(self, task: Task, chain: Sequence[str]) -> None:
        """``__switch_to_asm`` has pushed ``struct inactive_task_frame``."""
        out = self.fill_stack(task, chain)
        order = ("esi", "edi", "ebx", "ebp")
        out.push_all([0x46, *(out.registers.get(reg, 0) for reg in order)])
        task.view["thread.sp"] = out.sp
        self.store_stack(task, out)

    def new_percpu_area(self) -> int:
        """Per-cpu symbols are kernel addresses."""
        start, end = self.image.starts[".data..percpu"], self.image.ends[".data..percpu"]
        return self.guest.kmalloc(end - start, PAGE)

    def boot_cpu(self, cpu: int, task: Task) -> None:
        """Its interrupt stacks."""
        for name in ("hardirq_stack", "softirq_stack"):
            self.per_cpu(name, cpu)[""] = self.guest.kmalloc(self.stack_size, self.stack_size)

    # The vCPUs

    def _hypercall(self, task: Task, out: stack.Stack) -> dict[str, int]:
        eip = self.image.symbol("xen_hypercall_sched_op") + functions.HYPERCALL_RETURN
        registers = dict.fromkeys(("ebx", "esi", "edi", "ebp"), 0) | out.registers
        registers |= {
            "eax": functions.SCHED_OP,
            "ebx": 1 if task.idle else 2,
            "ecx": 0,
            "edx": 0,
            "eip": eip,
            "cs": KERNEL_CS,
            "eflags": 0x246 if task.idle else 0x46,
            "esp": out.sp,
            "ss": KERNEL_SS,
            "ds": 0x7B,
            "es": 0x7B,
            "fs": _PERCPU_FS,
        }
        task.registers = registers
        first = stack.StackFrame(eip, out.sp, None, "xen_hypercall_sched_op", True)
        task.frames = [first, *task.frames]
        task.view["thread.sp"] = out.sp - 0x90
        self.store_stack(task, out)
        return registers

    def run_idle(self, task: Task, chain: Sequence[str]) -> dict[str, int]:
        """Runs ``chain``, which ends in a hypercall; returns the vCPU's registers."""
        return self._hypercall(task, self.fill_stack(task, chain))

    def run_panic(self, task: Task) -> dict[str, int]:
        """Writes to address 0 in a system call and panics in the page fault."""
        out = self.fill_stack(task, functions.RUNNING["fault"])
        fault = self.image.text.labels[".fault"][0]
        saved = {name: out.registers.get(f"e{name}", 0) for name in ("bx", "si", "di", "bp")}
        saved |= {"ax": 0x63, "orig_ax": 2, "ip": fault, "cs": KERNEL_CS, "flags": 0x10246}
        saved |= {"ds": 0x7B, "es": 0x7B, "fs": _PERCPU_FS, "gs": 0x33}
        regs = self.types.struct("pt_regs")
        # An exception in kernel mode does not push sp and ss: these words of pt_regs are stale.
        words = bytearray(self.types.offset("pt_regs.sp"))
        for offset, member in regs.flattened():
            if offset < len(words) and member.name in saved:
                size = member.type.size
                words[offset : offset + size] = saved[member.name].to_bytes(size, "little")
        frame = [int.from_bytes(words[at : at + 4], "little") for at in range(0, len(words), 4)]
        interrupted = stack.interrupt(out, "sysrq_handle_crash", fault, frame)
        inner = stack.run(self.image.text, out, functions.RUNNING["panic"], self.rng)
        task.frames = [*inner, interrupted, *task.frames]
        return self._hypercall(task, out)

    # Facts, log, P2M

    def write_facts(self) -> None:
        """Adds the memory node and sys_call_table."""
        super().write_facts()
        self.variable("init_uts_ns")["kref.refcount.refs.counter"] = 2
        self.assign(totalram_pages=self.facts.memory_pages - 5000)
        node = self.variable("contig_page_data")
        node.set(nr_zones=4, node_present_pages=self.facts.memory_pages, node_id=0)
        node["node_spanned_pages"] = self.guest.pages
        table = self.variable("sys_call_table")
        calls = [n for n in self.image.text.functions if n.startswith("sys_")]
        for i in range(380):
            table[f"[{i}]"] = self.image.symbol(calls[i % len(calls)])

    def write_log(self, lines: list[Line]) -> None:
        """Writes the messages as records."""
        size = self.image.variables["__log_buf"].size
        log = printk.records(lines, size, 4)
        self.log = log.kept
        at = self.image.symbol("__log_buf")
        self.guest.write(at, log.data)
        self.assign(log_buf=at, log_buf_len=size, log_first_idx=log.first_idx)
        self.assign(log_next_idx=log.next_idx, log_first_seq=log.first_seq)
        self.assign(log_next_seq=log.next_seq)

    def write_page_tables(self, hypervisor: dict[int, int]) -> None:
        """Maps low memory and the P2M list; ``hypervisor`` has Xen's page-directory entries."""
        page_tables_32.write(self, hypervisor)
