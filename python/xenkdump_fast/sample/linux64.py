"""A running Linux 6.1 on x86_64 under Xen."""

from __future__ import annotations

from collections.abc import Sequence

from . import linux_6_1, p2m, printk, stack
from .kernel import Kernel
from .machine import PAGE
from .paging import ACCESSED, DIRTY, NX, PRESENT, USER, WRITE, X86_64
from .printk import Line
from .roster import Job
from .tasks import Task

_STATES = {"R": 0, "S": 1, "D": 2, "T": 4, "I": 0x402, "Z": 0x80}
_EXIT_ZOMBIE = 0x20

_PF_KTHREAD = 0x00200000
_PF_IDLE = 0x00000002

_STACKS = 0xFFFFC90040000000
_P2M_LIST = 0xFFFFC90000000000
_VMALLOC = 0xFFFFC90000000000
_VMEMMAP = 0xFFFFEA0000000000

#: Selectors of a 64-bit PV kernel and of its users.
KERNEL_CS, KERNEL_SS, USER_CS, USER_SS = 0xE033, 0xE02B, 0x33, 0x2B

DATA = PRESENT | WRITE | USER | ACCESSED | DIRTY | NX
CODE = PRESENT | USER | ACCESSED


class Linux64(Kernel):
    """Tasks with virtually mapped stacks, the printk ring, per-cpu offsets from zero."""

    paging = X86_64
    stack_size = 4 * PAGE
    domain_id = 0

    # -- stacks -------------------------------------------------------------------------------

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """What tasks of 6.1 sleep in."""
        return linux_6_1.SLEEPS

    def new_stack(self, job: Job) -> int:
        """init_stack, or four pages of vmalloc space with a gap behind them."""
        if job.pid == 0 and job.cpu == 0:
            return self.image.symbol("init_stack")
        n = len(self.tasks) + len(self.idle)
        low = _STACKS + n * 8 * PAGE  # a guard page and more between two stacks
        first = [self.guest.allocate() for _ in range(4)]
        self.guest.map(low, first)
        return low

    def _registers_at_foot(self, task: Task, syscall: str) -> dict[str, int]:
        rng = self.rng
        number = {"__x64_sys_write": 1, "__x64_sys_poll": 7, "__x64_sys_read": 0}.get(syscall, 61)
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
            "orig_ax": number,
            "ip": ip,
            "cs": USER_CS,
            "flags": 0x246,
            "sp": rng.randrange(0x7FFC00000000, 0x7FFD00000000, 8),
            "ss": USER_SS,
        }

    def _fill_stack(self, task: Task, chain: Sequence[str]) -> stack.Stack:
        """pt_regs, then the calls of ``chain``."""
        low = task.stack
        regs = self.types.struct("pt_regs")
        foot = low + self.stack_size - regs.size
        out = self.stale(low, chain, foot)
        if task.job.user:
            syscall = next((f for f in chain if f.startswith("__x64_sys_")), "")
            values = self._registers_at_foot(task, syscall)
            if not syscall:  # a page fault: nothing was called
                values["orig_ax"] = 4
            task.user_registers, task.user_registers_at = values, foot
            for offset, member in regs.flattened():
                out.poke(foot + offset, values[member.name or ""])
        else:
            for offset in range(0, regs.size, 8):
                out.poke(foot + offset, 0)
        task.frames = stack.run(self.image.text, out, chain, self.rng)
        return out

    # -- tasks --------------------------------------------------------------------------------

    def make_task(self, job: Job, idle: bool) -> Task:
        """A task_struct, its stack and its address space."""
        boot = idle and job.cpu == 0
        view = self.variable("init_task") if boot else self.new("task_struct")
        zombie = job.state == "Z"
        low = 0 if zombie else self.new_stack(job)
        task = Task(job, view.address, view, low, idle)
        view["comm"] = job.comm
        view.set(pid=job.pid, tgid=job.group, stack=low, on_cpu=0, prio=120, static_prio=120)
        view.set(normal_prio=120, policy=0, nr_cpus_allowed=self.cpus)
        view["__state"] = _STATES[job.state]
        view["exit_state"] = _EXIT_ZOMBIE if zombie else 0
        view["flags"] = (0x400000 if job.user else _PF_KTHREAD) | (_PF_IDLE if idle else 0)
        view["thread_info.cpu"] = job.cpu
        view["wake_cpu"] = view["recent_used_cpu"] = job.cpu
        started = 0 if idle else round(min(job.pid / 100, self.facts.uptime / 2) * 1e9)
        view.set(start_time=started, start_boottime=started)
        view.set(utime=self.rng.randrange(10**9), stime=self.rng.randrange(10**9))
        view.set(nvcsw=self.rng.randrange(10**5), nivcsw=self.rng.randrange(10**3))
        view["se.sum_exec_runtime"] = self.rng.randrange(10**10)
        view["se.exec_start"] = round(self.facts.uptime * 1e9) - self.rng.randrange(10**9)
        view["usage.refs.counter"] = 1
        if low:
            view["stack_refcount.refs.counter"] = 1
            view["stack_canary"] = self.rng.getrandbits(56) << 8
            # The magic word at the end of every stack.
            self.guest.write(low, (0x57AC6E9D).to_bytes(8, "little"))
        if job.user and not zombie:
            self._address_space(task)
        elif boot:
            view["active_mm"] = self.image.symbol("init_mm")
        if job.sleep == "idle":
            chain = self.sleeps()["idle0" if boot else "idle"]
            self._sleep(task, chain)
        elif job.sleep in self.sleeps():
            self._sleep(task, self.sleeps()[job.sleep])
        return task

    def _sleep(self, task: Task, chain: Sequence[str]) -> None:
        """Off the CPU: ``__switch_to_asm`` has pushed what ``inactive_task_frame`` names."""
        out = self._fill_stack(task, chain)
        order = ("r15", "r14", "r13", "r12", "rbx", "rbp")
        out.push_all([out.registers.get(reg, 0) for reg in order])
        task.view["thread.sp"] = out.sp
        self._store(task, out)

    def _store(self, task: Task, out: stack.Stack) -> None:
        self.guest.write(task.stack + 8, bytes(out.data[8:]))

    def _address_space(self, task: Task) -> None:
        if task.job.group != task.job.pid:
            leader = self.task(task.job.group)
            task.mm, task.root = leader.mm, leader.root
        else:
            pgd = self.guest.allocate()
            mm = self.new("mm_struct")
            mm.set(pgd=self.direct(pgd), map_count=20, task_size=0x7FFFFFFFF000)
            mm["mm_users.counter"] = mm["mm_count.counter"] = 1
            total = self.rng.randrange(500, 60000)
            mm.set(total_vm=total, owner=task.address)
            mm["rss_stat[0].counter"] = total // 8
            mm["rss_stat[1].counter"] = total // 5
            task.mm, task.root = mm.address, self.guest.mfn(pgd)
        task.view.set(mm=task.mm, active_mm=task.mm)

    def direct(self, pfn: int) -> int:
        """The direct map's address of a page."""
        return self.image.spec.page_offset + pfn * PAGE

    def link_tasks(self) -> None:
        """The lists of 6.1: leaders, threads of a group, children."""
        by_pid = {task.job.pid: task for task in self.tasks}
        by_pid[0] = self.idle[0]
        leaders = [t for t in self.tasks if t.job.group == t.job.pid]
        self.link([t.view.at("tasks") for t in (self.idle[0], *leaders)])
        children: dict[int, list[int]] = {}
        for task in (self.idle[0], *leaders):
            group = [t for t in self.tasks if t.job.group == task.job.pid] or [task]
            signal = self.variable("init_signals") if task.idle else self.new("signal_struct")
            signal["nr_threads"] = len(group)
            signal["live.counter"] = len(group)
            self.link([signal.at("thread_head"), *(t.view.at("thread_node") for t in group)])
            self.link([t.view.at("thread_group") for t in group])
            for thread in group:
                parent = by_pid.get(thread.job.parent, self.idle[0])
                thread.view.set(
                    group_leader=task.address,
                    signal=signal.address,
                    real_parent=parent.address,
                    parent=parent.address,
                )
            if not task.idle:
                children.setdefault(by_pid[task.job.parent].address, []).append(task.address)
        for idle in self.idle[1:]:
            idle.view.set(
                group_leader=idle.address,
                real_parent=self.idle[0].address,
                parent=self.idle[0].address,
                signal=self.image.symbol("init_signals"),
            )
            for member in ("tasks", "thread_group", "thread_node"):
                self.list_head(idle.view.at(member))
        offset = self.types.offset("task_struct.children")
        sibling = self.types.offset("task_struct.sibling")
        for task in (*self.idle, *self.tasks):
            mine = children.get(task.address, [])
            self.link([task.address + offset, *(child + sibling for child in mine)])

    # -- the CPUs -----------------------------------------------------------------------------

    def boot_cpus(self, current: Sequence[Task]) -> None:
        """Per-cpu areas and runqueues; ``current`` are the tasks that the CPUs execute."""
        for task in current:
            task.view["on_cpu"] = 1
        size = self.image.ends[".data..percpu"]
        for _ in range(self.cpus):
            pages = -(-size // PAGE)
            self.percpu.append(self.direct(self.guest.allocate(pages)))
        for cpu, task in enumerate(current):
            base = self.percpu[cpu]
            self.variable("__per_cpu_offset")[f"[{cpu}]"] = base
            self.per_cpu("cpu_number", cpu)[""] = cpu
            self.per_cpu("this_cpu_off", cpu)[""] = base
            self.per_cpu("current_task", cpu)[""] = task.address
            self.per_cpu("idle_threads", cpu)[""] = self.idle[cpu].address
            top = self.per_cpu("irq_stack_backing_store", cpu).address + 16384
            self.per_cpu("hardirq_stack_ptr", cpu)[""] = top - 8
            self.per_cpu("cpu_current_top_of_stack", cpu)[""] = task.stack + self.stack_size
            rq = self.per_cpu("runqueues", cpu)
            rq.set(curr=task.address, idle=self.idle[cpu].address, cpu=cpu, online=1)
            rq.set(nr_running=0 if task.idle else 1, nr_switches=self.rng.randrange(10**6))
            rq["clock"] = round(self.facts.uptime * 1e9)
        mask = (1 << self.cpus) - 1
        for name in ("possible", "online", "present", "active"):
            self.variable(f"__cpu_{name}_mask")["bits[0]"] = mask
        self.assign(nr_cpu_ids=self.cpus)

    def run_vcpu(self, task: Task, chain: Sequence[str]) -> dict[str, int]:
        """The task executes ``chain`` and stands in a hypercall; gives the vCPU's registers."""
        out = self._fill_stack(task, chain)
        inner = self.image.symbol("xen_hypercall_sched_op")
        rip = inner + linux_6_1.HYPERCALL_RETURN
        flags = 0x246 if task.idle else 0x46
        stored = out.sp
        out.push(rip)  # rcx and r11 as the stub found them
        out.push(flags)
        registers = dict(out.registers)
        arg = out.low + self.stack_size - 0x800
        registers.update(
            rax=linux_6_1.SCHED_OP,
            rcx=rip,
            rdx=0,
            rsi=arg,
            rdi=2 if not task.idle else 1,
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
        for reg in ("rbx", "rbp", "r12", "r13", "r14", "r15"):
            registers.setdefault(reg, 0)
        task.registers = registers
        first = stack.StackFrame(rip, out.sp, None, "xen_hypercall_sched_op", True)
        task.frames = [first, *task.frames]
        # What it would have if it had last been off the CPU a little before.
        task.view["thread.sp"] = stored - 0x180
        self._store(task, out)
        return registers

    # -- header facts, log, P2M ---------------------------------------------------------------

    def write_facts(self) -> None:
        """Names, times, loads, sizes."""
        facts, spec = self.facts, self.image.spec
        uts = {
            "sysname": "Linux",
            "nodename": facts.nodename,
            "release": spec.release,
            "version": spec.version,
            "machine": "x86_64",
            "domainname": "(none)",
        }
        view = self.variable("init_uts_ns")
        for name, text in uts.items():
            view[f"name.{name}"] = text
        self.assign(
            page_offset_base=spec.page_offset,
            vmalloc_base=_VMALLOC,
            vmemmap_base=_VMEMMAP,
            phys_base=0,
            # Under Xen PV jiffies_64 starts as everywhere: 300 s before its low half wraps.
            jiffies_64=facts.jiffies,
            avenrun=facts.avenrun,
            cpu_khz=facts.mhz * 1000,
            tsc_khz=facts.mhz * 1000,
            max_pfn=self.guest.pages,
            max_low_pfn=self.guest.pages,
            total_forks=max((t.job.pid for t in self.tasks), default=0),
            nr_threads=len(self.tasks),
            high_memory=self.direct(self.guest.pages),
        )
        self.variable("_totalram_pages")["counter"] = facts.memory_pages
        cpu = self.variable("boot_cpu_data")
        cpu.set(x86=6, x86_model=85, x86_stepping=4, x86_vendor_id=facts.vendor)
        cpu.set(x86_model_id=facts.model, x86_virt_bits=48, x86_phys_bits=46)
        cpu["loops_per_jiffy"] = facts.mhz * 1000 * 1000 // facts.hz
        tk = self.variable("tk_core")
        boot = facts.date - int(facts.uptime)
        tk["timekeeper.xtime_sec"] = facts.date
        tk["timekeeper.ktime_sec"] = int(facts.uptime)
        tk["timekeeper.wall_to_monotonic.tv_sec"] = -boot
        tk["timekeeper.tkr_mono.shift"] = 24
        tk["timekeeper.tkr_mono.mult"] = 1 << 24
        tk["timekeeper.tkr_mono.xtime_nsec"] = 123_456_789 << 24
        tk["timekeeper.offs_real"] = boot * 10**9
        tk["timekeeper.raw_sec"] = int(facts.uptime)
        self.list_head(self.image.symbol("modules"))
        init_mm = self.variable("init_mm")
        init_mm.set(pgd=self.image.symbol("init_top_pgt"))
        init_mm["mm_users.counter"] = 2
        node = self.new("pglist_data")
        node.set(nr_zones=2, node_present_pages=facts.memory_pages, node_id=0)
        node["node_spanned_pages"] = self.guest.pages
        self.variable("node_data")["[0]"] = node.address
        self._vmcoreinfo()

    def _vmcoreinfo(self) -> None:
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
        """The messages, through a ring of 1024 records and 128 KiB."""
        size = self.image.variables["__log_buf"].size
        ring = printk.ring(lines, 10, size.bit_length() - 1)
        self.log = ring.kept
        self.guest.write(self.image.symbol("_printk_rb_static_descs"), ring.descs)
        self.guest.write(self.image.symbol("_printk_rb_static_infos"), ring.infos)
        self.guest.write(self.image.symbol("__log_buf"), ring.data)
        rb = self.variable("printk_rb_static")
        rb["desc_ring.count_bits"] = 10
        rb["desc_ring.descs"] = self.image.symbol("_printk_rb_static_descs")
        rb["desc_ring.infos"] = self.image.symbol("_printk_rb_static_infos")
        rb["desc_ring.head_id.counter"] = ring.head_id
        rb["desc_ring.tail_id.counter"] = ring.tail_id
        rb["desc_ring.last_finalized_id.counter"] = ring.head_id
        rb["text_data_ring.size_bits"] = size.bit_length() - 1
        rb["text_data_ring.data"] = self.image.symbol("__log_buf")
        rb["text_data_ring.head_lpos.counter"] = ring.head_lpos
        rb["text_data_ring.tail_lpos.counter"] = ring.tail_lpos
        self.assign(prb=rb.address, log_buf=self.image.symbol("__log_buf"), log_buf_len=size)

    def write_p2m(self) -> p2m.LinearList:
        """The linear list, mapped at the start of vmalloc space, and its variables."""
        entries = p2m.write_list(self.guest, sparse=True, shared_tail=16)
        self.guest.map(_P2M_LIST, entries.pfns)
        self.assign(
            xen_p2m_addr=_P2M_LIST,
            xen_p2m_size=len(entries.pfns) * PAGE // 8,
            # Says how far the list could grow, not how far it does.
            xen_max_p2m_pfn=0x8000000,
            xen_p2m_last_pfn=self.guest.pages,
        )
        return entries

    @property
    def p2m_vaddr(self) -> int:
        """Where the linear list lies."""
        return _P2M_LIST

    @property
    def root(self) -> int:
        """The mfn of the kernel's own top page table."""
        return self.guest.mfn(self.guest.pfn_of(self.image.symbol("init_top_pgt")))

    def write_page_tables(self, hypervisor: dict[int, int]) -> None:
        """Maps everything; ``hypervisor`` gives the entries of Xen's own slots of a top table."""
        guest, spec = self.guest, self.image.spec
        tables = self.page_tables(self.root)
        text = (self.image.text.base - spec.map_base) // PAGE
        end = (self.image.end - spec.map_base) // PAGE
        image = [guest.mfn(p) for p in range(text, end)]
        tables.map_run(self.image.text.base, image, DATA & ~NX)
        for va, pfn in sorted(guest.mapped.items()):
            tables.map(va * PAGE, guest.mfn(pfn), DATA)
        # A user page each, so that a process's own half is not empty.
        for task in self.tasks:
            if task.root and task.job.group == task.job.pid and task.user_registers:
                own = self.page_tables(task.root)
                page = task.user_registers["ip"] // PAGE * PAGE
                own.map(page, guest.page_table_page(), CODE)
        frames = [guest.mfn(p) if guest.is_frame(p) else None for p in range(guest.pages)]
        tables.map_run(spec.page_offset, frames, DATA)
        for slot, entry in hypervisor.items():
            tables.set(tables.root, slot, entry)
        half = bytes(guest.machine.frame(self.root)[2048:])
        for task in self.tasks:
            if task.root:
                guest.machine.frame(task.root)[2048:] = half
