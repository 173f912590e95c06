"""A running Linux 6.1 on x86_64 under Xen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar

from ...code import stack
from ...debuginfo.ctype import Member
from ...memory.machine import PAGE
from ...memory.paging import X86_64
from .. import page_tables_64, printk
from ..base import STACK_END_MAGIC
from ..modules import Source
from ..printk import Line
from ..pvops import Pvops
from ..task_table import Job
from ..tasks import Task
from . import functions
from .crashes import Crash, Describe

#: The first kernel stack, in vmalloc space.
STACKS = 0xFFFFC90040000000
_VMALLOC = 0xFFFFC90000000000
_VMEMMAP = 0xFFFFEA0000000000

#: Selectors of a 64-bit PV kernel, which runs in ring 3.
KERNEL_CS, KERNEL_SS = 0xE033, 0xE02B

_SYSCALLS = {"__x64_sys_read": 0, "__x64_sys_write": 1, "__x64_sys_poll": 7}


class Linux61(Pvops):
    """Stacks are virtually mapped, the log is a ring, per-cpu symbols are offsets."""

    paging = X86_64
    machine, top_table = "x86_64", "init_top_pgt"
    max_p2m_pfn = 0x8000000
    #: The start of vmalloc space.
    p2m_vaddr = _VMALLOC
    stack_size = 4 * PAGE
    states: ClassVar = {"R": 0, "S": 1, "D": 2, "T": 4, "I": 0x402, "Z": 0x80}
    exit_zombie = 0x20
    frees_zombie_stacks = True
    hypercall = functions.BY_FUNCTION
    #: The task on each CPU.
    running: Sequence[Task] = ()
    #: More call chains of sleeping tasks, if a crash needs them.
    extra_sleeps: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """The call chains of 6.1, and those of ``extra_sleeps``."""
        return {**functions.SLEEPS, **self.extra_sleeps}

    module_sources: ClassVar = (
        Source("xen_netback", (("schedule_timeout", "xenvif_dealloc_kthread", "kthread"),)),
        Source("jbd2", (functions.IN_MODULE[2:-1],)),
    )
    sleeps_in_modules: ClassVar = {"jbd2/": functions.IN_MODULE}

    def modules_start(self) -> int:
        """MODULES_VADDR with KASLR in the kernel."""
        return 0xFFFFFFFFC0000000

    def new_stack(self, job: Job) -> int:
        """init_stack, or four pages of vmalloc space with a guard page."""
        if job.pid == 0 and job.cpu == 0:
            return self.image.symbol("init_stack")
        low = STACKS + (len(self.tasks) + len(self.idle)) * 8 * PAGE
        self.guest.map(low, [self.guest.allocate() for _ in range(4)])
        return low

    def user_registers(self, task: Task, syscall: str) -> dict[str, int]:
        """The registers of a system call; a page fault has an error code in orig_ax."""
        rng = self.rng
        ip = 0x400000 + rng.randrange(0x1000, 0x80000)
        return {
            "r15": rng.randrange(0x7FFC00000000, 0x7FFD00000000, 8),
            "r14": rng.randrange(0, 16),
            "r13": rng.randrange(0x30000000, 0x34000000, 16),
            "r12": rng.randrange(0, 4),
            "bp": rng.randrange(0x30000000, 0x34000000, 16),
            "bx": rng.randrange(0, 256),
            "r11": 0x246,
            "r10": rng.randrange(0, 0x200),
            "r9": 0,
            "r8": rng.randrange(0, 64),
            "ax": -38 & 0xFFFFFFFFFFFFFFFF,
            "cx": ip,
            "dx": rng.randrange(0, 4096),
            "si": rng.randrange(0x30000000, 0x34000000, 16),
            "di": rng.randrange(0, 32),
            "orig_ax": _SYSCALLS.get(syscall, 61) if syscall else 4,
            "ip": ip,
            "cs": self.user_cs,
            "flags": 0x246,
            "sp": rng.randrange(0x7FFC00000000, 0x7FFD00000000, 8),
            "ss": self.user_ss,
        }

    def describe(self, task: Task) -> None:
        """``__state``, the canary, STACK_END_MAGIC."""
        task.view["__state"] = self.states[task.job.state]
        task.view["usage.refs.counter"] = 1
        if task.stack:
            task.view["stack_canary"] = self.rng.getrandbits(56) << 8
            self.guest.write(task.stack, STACK_END_MAGIC.to_bytes(8, "little"))
        if task.idle and task.job.cpu == 0:
            task.view["active_mm"] = self.image.symbol("init_mm")

    def sleep(self, task: Task, chain: Sequence[str]) -> None:
        """``__switch_to_asm`` has pushed ``struct inactive_task_frame``."""
        out = self.fill_stack(task, chain)
        order = ("r15", "r14", "r13", "r12", "rbx", "rbp")
        out.push_all([out.registers.get(reg, 0) for reg in order])
        task.view["thread.sp"] = out.sp
        self.store_stack(task, out)

    def new_percpu_area(self) -> int:
        """Per-cpu symbols are offsets from 0."""
        pages = -(-self.image.ends[".data..percpu"] // PAGE)
        return self.direct(self.guest.allocate(pages))

    def boot_cpu(self, cpu: int, task: Task) -> None:
        """Its idle task and its interrupt stacks."""
        self.per_cpu("idle_threads", cpu)[""] = self.idle[cpu].address
        top = self.per_cpu("irq_stack_backing_store", cpu).address + 16384
        self.per_cpu("hardirq_stack_ptr", cpu)[""] = top - 8
        self.per_cpu("cpu_current_top_of_stack", cpu)[""] = task.stack + self.stack_size

    def run_vcpu(self, task: Task, chain: Sequence[str]) -> dict[str, int]:
        """Runs ``chain``, which ends in a hypercall; returns the vCPU's registers."""
        return self._hypercall(task, self.fill_stack(task, chain))

    def crash(self, task: Task, crash: Crash) -> dict[str, int]:
        """Lets a task crash the kernel; returns the registers of its vCPU."""
        if not crash.is_exception:
            return self.run_vcpu(task, (*crash.reaction, *crash.where))
        out = self.fill_stack(task, crash.where)
        function = self.text.functions[crash.where[0]]
        # In the body, where the frame is complete.
        pc = max(function.rows, key=lambda row: row[1].offset)[0]
        sp = out.sp
        out.sp &= ~0xF  # as the processor aligns it
        values = {"ip": pc, "cs": KERNEL_CS, "flags": 0x10246, "sp": sp, "ss": KERNEL_SS}
        short = {"bx": "rbx", "bp": "rbp"}
        words = [
            values.get(name, out.registers.get(short.get(name, name), 0))
            for name in (member.name or "" for _, member in self._pt_regs())
        ]
        frame = stack.interrupt(out, crash.where[0], pc, words)
        task.frames = [replace(frame, sp=sp), *task.frames]
        task.frames = [*stack.run(self.text, out, crash.reaction, self.rng), *task.frames]
        return self._hypercall(task, out)

    def _pt_regs(self) -> list[tuple[int, Member]]:
        return sorted(self.types.struct("pt_regs").flattened(), key=lambda part: part[0])

    def describe_frames(self) -> Describe:
        """What writes the frames of this kernel as it prints them."""
        functions = {n: (f.address, f.size) for n, f in self.text.functions.items()}
        return Describe(functions | self.text.labels)

    def _hypercall(self, task: Task, out: stack.Stack) -> dict[str, int]:
        """Makes the hypercall that stops the vCPU; returns its registers."""
        rip = self.image.symbol(self.hypercall.symbol) + self.hypercall.offset
        flags = 0x246 if task.idle else 0x46
        last_switch = out.sp - 0x180
        out.push(rip)  # rcx and r11, which ``syscall`` clobbers
        out.push(flags)
        registers = dict.fromkeys(("rbx", "rbp", "r12", "r13", "r14", "r15"), 0)
        registers.update(out.registers)
        registers.update(
            rax=functions.SCHED_OP,
            rcx=rip,
            rdx=0,
            rsi=out.low + self.stack_size - 0x800,
            rdi=1 if task.idle else 2,
            r8=0,
            r9=0,
            r10=0,
            r11=flags,
            rip=rip,
            cs=KERNEL_CS,
            rflags=flags,
            rsp=out.sp,
            ss=KERNEL_SS,
        )
        task.registers = registers
        first = stack.StackFrame(rip, out.sp, None, self.hypercall.symbol, True)
        task.frames = [first, *task.frames]
        # thread.sp is stale while the task runs.
        task.view["thread.sp"] = last_switch
        self.store_stack(task, out)
        return registers

    def write_facts(self) -> None:
        """Adds page_offset_base and the like, the timekeeper, the memory node, VMCOREINFO."""
        super().write_facts()
        facts = self.facts
        self.assign(
            page_offset_base=self.image.spec.page_offset,
            vmalloc_base=_VMALLOC,
            vmemmap_base=_VMEMMAP,
        )
        self.variable("_totalram_pages")["counter"] = facts.memory_pages
        tk = self.variable("tk_core")
        tk["timekeeper.tkr_mono.xtime_nsec"] = 123_456_789 << 24
        tk["timekeeper.offs_real"] = (facts.date - int(facts.uptime)) * 10**9
        tk["timekeeper.raw_sec"] = int(facts.uptime)
        node = self.new("pglist_data")
        node.set(nr_zones=2, node_present_pages=facts.memory_pages, node_id=0)
        node["node_spanned_pages"] = self.guest.max_pfn
        self.variable("node_data")["[0]"] = node.address
        self._write_vmcoreinfo()

    def _write_vmcoreinfo(self) -> None:
        symbol, types = self.image.symbol, self.types
        lines = [
            f"OSRELEASE={self.image.spec.release}",
            f"BUILD-ID={self.image.build_id.hex()}",
            "PAGESIZE=4096",
            *(f"SYMBOL({n})={symbol(n):x}" for n in ("init_uts_ns", "_stext", "prb")),
            f"SYMBOL(swapper_pg_dir)={symbol('init_top_pgt'):x}",
            f"OFFSET(uts_namespace.name)={types.offset('uts_namespace.name')}",
            f"SIZE(list_head)={types.sizeof('list_head')}",
            f"OFFSET(list_head.next)={types.offset('list_head.next')}",
            f"SIZE(printk_ringbuffer)={types.sizeof('printk_ringbuffer')}",
            "NUMBER(phys_base)=0",
            f"SYMBOL(init_top_pgt)={symbol('init_top_pgt'):x}",
            "KERNELOFFSET=0",
            f"CRASHTIME={self.facts.date}",
        ]
        raw = ("\n".join(lines) + "\n").encode()
        data = self.guest.kmalloc(PAGE, PAGE)
        self.guest.write(data, raw)
        self.assign(vmcoreinfo_data=data, vmcoreinfo_size=len(raw))

    def write_log(self, lines: list[Line]) -> None:
        """Writes the messages to a ring of 1024 descriptors and 128 KiB of text."""
        size = self.image.variables["__log_buf"].size
        places = [
            self.image.symbol(name)
            for name in ("_printk_rb_static_descs", "_printk_rb_static_infos", "__log_buf")
        ]
        self.write_ring(printk.ring(lines, 10, size.bit_length() - 1), 10, places)

    def write_large_log(self, lines: list[Line], size_bits: int) -> None:
        """Writes the messages to a ring that was allocated at boot (``log_buf_len=``)."""
        # setup_log_buf(): a descriptor for each 32 bytes.
        ring = printk.ring(lines, size_bits - 5, size_bits)
        sizes = (len(part) for part in (ring.descs, ring.infos, ring.data))
        places = [self.direct(self.guest.allocate(-(-size // PAGE))) for size in sizes]
        self.write_ring(ring, size_bits - 5, places)

    def write_ring(self, ring: printk.Ring, count_bits: int, places: Sequence[int]) -> None:
        """Writes a ring with its descriptors, infos and text at these addresses."""
        size = len(ring.data)
        self.log = ring.kept
        for at, part in zip(places, (ring.descs, ring.infos, ring.data), strict=True):
            self.guest.write(at, part)
        descs, infos, data = places
        rb = self.variable("printk_rb_static")
        rb["desc_ring.count_bits"] = count_bits
        rb["desc_ring.descs"] = descs
        rb["desc_ring.infos"] = infos
        rb["desc_ring.head_id.counter"] = ring.head_id
        rb["desc_ring.tail_id.counter"] = ring.tail_id
        rb["desc_ring.last_finalized_id.counter"] = ring.head_id
        rb["text_data_ring.size_bits"] = size.bit_length() - 1
        rb["text_data_ring.data"] = data
        rb["text_data_ring.head_lpos.counter"] = ring.head_lpos
        rb["text_data_ring.tail_lpos.counter"] = ring.tail_lpos
        self.assign(prb=rb.address, log_buf=data, log_buf_len=size)

    def write_page_tables(self, hypervisor: dict[int, int]) -> None:
        """Maps everything; ``hypervisor`` has Xen's entries of an L4 table."""
        page_tables_64.write(self, hypervisor)
