"""A kernel that runs in a domain: the code that all versions have in common."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from ..code import stack
from ..memory.guest import Guest, Linear
from ..memory.machine import PAGE
from ..memory.p2m import LinearList
from ..memory.paging import PageTables, Paging
from . import log_messages, modules
from .facts import Facts
from .image import Image
from .printk import Line
from .task_table import Job, leaders_first
from .tasks import Task
from .view import Value, View

PF_KTHREAD = 0x00200000
PF_IDLE = 0x00000002

#: What freed code is overwritten with.
_POISON_FREE_INITMEM = 0xCC

#: STACK_END_MAGIC, at the lowest address of a stack.
STACK_END_MAGIC = 0x57AC6E9D


class Kernel:
    """Boots an image in a guest: writes its variables, tasks and stacks.

    The versions derive from it and override what differs.
    """

    paging: Paging
    stack_size: int
    #: Bytes between pt_regs and the top of a stack.
    padding = 0
    #: The end of the direct map.
    lowmem_end = 1 << 64
    #: task_struct's state by the letter that ps prints.
    states: ClassVar[Mapping[str, int]]
    exit_zombie = 16
    #: Selectors of user code and stack.
    user_cs, user_ss = 0x33, 0x2B
    #: pt_regs' names of the instruction pointer and the stack pointer.
    ip, sp = "ip", "sp"
    #: Whether the stack of an exited task is freed.
    frees_zombie_stacks = False
    #: The modules of this version.
    module_sources: ClassVar[Sequence[modules.Source]] = ()
    #: The call chains of tasks that sleep in a module, by the start of their names.
    sleeps_in_modules: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(
        self, image: Image, guest: Guest, facts: Facts, cpus: int, rng: random.Random
    ) -> None:
        self.image = image
        self.types = image.types
        self.guest = guest
        self.facts = facts
        self.cpus = cpus
        self.rng = rng
        self.word = image.types.abi.word
        self.tasks: list[Task] = []
        self.idle: list[Task] = []
        self.log: list[Line] = []
        self.percpu: list[int] = []
        self.modules: list[modules.Module] = []
        #: The text of the image and of its modules.
        self.text = image.text
        spec = image.spec
        top = min(spec.page_offset + guest.pages * PAGE, self.lowmem_end)
        guest.linear.append(Linear(spec.page_offset, top, 0))
        if not spec.page_offset <= spec.map_base < top:
            guest.linear.append(Linear(spec.map_base, spec.map_base + (1 << 30), 0))
        first = -(-self.image.end // PAGE)
        guest.start_allocating(guest.pfn_of((first - 1) * PAGE) + 1)
        kept = image.init_start - image.text.base
        freed = bytes([_POISON_FREE_INITMEM]) * (len(image.text.code) - kept)
        guest.write(image.text.base, image.text.code[:kept] + freed)
        guest.write(spec.rodata, bytes(image.rodata))

    # Variables

    def variable(self, name: str) -> View:
        """A variable of the image."""
        placed = self.image.variables[self.image.spec.aliases.get(name, name)]
        return View(self.guest, placed.variable.type, placed.address)

    def has(self, name: str) -> bool:
        """Whether the image has such a variable."""
        return name in self.image.variables

    def assign(self, **values: Value) -> None:
        """Writes variables; those that the kernel does not have are ignored."""
        for name, value in values.items():
            if self.has(name):
                self.variable(name)[""] = value

    def per_cpu(self, name: str, cpu: int) -> View:
        """A CPU's instance of a per-cpu variable."""
        placed = self.image.variables[name]
        start = self.image.starts[".data..percpu"]
        address = self.percpu[cpu] + placed.address - start
        return View(self.guest, placed.variable.type, address)

    def new(self, name: str, align: int = 64) -> View:
        """Allocates a struct."""
        struct = self.types.struct(name)
        return View(self.guest, struct, self.guest.kmalloc(struct.size, align))

    def direct(self, pfn: int) -> int:
        """The address of a page in the direct map."""
        return self.image.spec.page_offset + pfn * PAGE

    def link(self, heads: Sequence[int]) -> None:
        """Links ``list_head``s into a circular list."""
        for i, at in enumerate(heads):
            following, before = heads[(i + 1) % len(heads)], heads[i - 1]
            self.guest.write(
                at, following.to_bytes(self.word, "little") + before.to_bytes(self.word, "little")
            )

    # Stacks

    def new_stack(self, job: Job) -> int:
        """Allocates a kernel stack; returns its lowest address."""
        raise NotImplementedError

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """The call chains of sleeping tasks, by name."""
        raise NotImplementedError

    def foot(self, low: int) -> int:
        """The address of pt_regs on a stack."""
        return low + self.stack_size - self.padding - self.types.sizeof("pt_regs")

    def stale(self, low: int, sp: int) -> stack.Stack:
        """A stack with stale frames of deeper calls."""
        every = [chain for chain in self.sleeps().values() if len(chain) < 14]
        out = stack.Stack(self.word, low, low + self.stack_size, sp)
        for _ in range(2):
            out.sp = sp - self.word * self.rng.randrange(0, 40)
            out.registers = {}
            stack.run(self.text, out, self.rng.choice(every)[:-1], self.rng)
        out.sp = sp
        out.registers = {}
        return out

    def user_registers(self, task: Task, syscall: str) -> dict[str, int]:
        """The registers on entry to the kernel, by pt_regs' names."""
        raise NotImplementedError

    def kernel_thread_start(self, out: stack.Stack, foot: int) -> None:
        """Sets the stack pointer to that of a kernel thread's outermost function."""
        for at in range(foot, out.high, self.word):
            out.poke(at, 0)

    def user_start(self, foot: int, syscall: str) -> int:
        """The stack pointer of the entry code at its first call."""
        return foot

    def fill_stack(self, task: Task, chain: Sequence[str]) -> stack.Stack:
        """A stack with pt_regs and the frames of ``chain``."""
        low = task.stack
        foot = self.foot(low)
        out = self.stale(low, foot)
        if task.job.user:
            syscall = next((f for f in chain if f.removeprefix("__x64_").startswith("sys_")), "")
            values = self.user_registers(task, syscall)
            task.user_registers, task.user_registers_at = values, foot
            for offset, member in self.types.struct("pt_regs").flattened():
                if member.name in values:
                    out.poke(foot + offset, values[member.name])
            out.sp = self.user_start(foot, syscall)
        elif not task.idle:
            self.kernel_thread_start(out, foot)
        task.frames = stack.run(self.text, out, chain, self.rng)
        return out

    def store_stack(self, task: Task, out: stack.Stack) -> None:
        """Writes a stack, except for ``at_foot_of_stack`` bytes."""
        keep = self.at_foot_of_stack()
        self.guest.write(task.stack + keep, bytes(out.data[keep:]))

    def at_foot_of_stack(self) -> int:
        """Bytes at the lowest address of a stack that are in use: thread_info, STACK_END_MAGIC."""
        return self.word

    def sleep(self, task: Task, chain: Sequence[str]) -> None:
        """Schedules the task out within ``chain``."""
        raise NotImplementedError

    # Tasks

    def make_tasks(self, jobs: Sequence[Job]) -> None:
        """Makes the idle tasks, then one task per job."""
        for cpu in range(self.cpus):
            comm = self.idle_name(cpu)
            self.idle.append(self.make_task(Job(0, comm, "idle", "R", cpu, 0), idle=True))
        for job in leaders_first(jobs):
            self.tasks.append(self.make_task(job, idle=False))
        self.link_tasks()

    def idle_name(self, cpu: int) -> str:
        """``swapper`` and the CPU's number since 3.2."""
        return f"swapper/{cpu}"

    def new_task_struct(self, job: Job) -> View:
        """Allocates a task_struct."""
        return self.new("task_struct")

    def make_task(self, job: Job, idle: bool) -> Task:
        """Makes a task: its struct, its stack, its address space."""
        boot = idle and job.cpu == 0
        view = self.variable("init_task") if boot else self.new_task_struct(job)
        zombie = job.state == "Z"
        low = 0 if zombie and self.frees_zombie_stacks else self.new_stack(job)
        task = Task(job, view.address, view, low, idle)
        kind = 0x400000 if job.user else PF_KTHREAD
        started = 0 if idle else round(min(job.pid / 100, self.facts.uptime / 2) * 1e9)
        rng = self.rng
        view.put(
            comm=job.comm,
            pid=job.pid,
            tgid=job.group,
            stack=low,
            thread_info=low,
            prio=120,
            static_prio=120,
            normal_prio=120,
            nr_cpus_allowed=self.cpus,
            state=self.states[job.state],
            exit_state=self.exit_zombie if zombie else 0,
            flags=kind | (PF_IDLE if idle else 0),
            thread_info__cpu=job.cpu,
            cpu=job.cpu,
            wake_cpu=job.cpu,
            recent_used_cpu=job.cpu,
            start_time=started,
            start_boottime=started,
            utime=rng.randrange(10**9),
            stime=rng.randrange(10**9),
            nvcsw=rng.randrange(10**5),
            nivcsw=rng.randrange(10**3),
            se__sum_exec_runtime=rng.randrange(10**10),
            se__exec_start=round(self.facts.uptime * 1e9) - rng.randrange(10**9),
            stack_refcount__refs__counter=int(low != 0),
        )
        self.describe(task)
        if job.user and not zombie:
            self.address_space(task)
        if job.sleep == "idle":
            self.sleep(task, self.sleeps()["idle0" if boot else "idle"])
        elif job.sleep in self.sleeps():
            self.sleep(task, self.sleeps()[job.sleep])
        return task

    def describe(self, task: Task) -> None:
        """Writes the members that only this version has."""

    def address_space(self, task: Task) -> None:
        """Makes an mm_struct with a root; threads share their leader's."""
        if task.job.group != task.job.pid:
            leader = self.task(task.job.group)
            task.mm, task.root = leader.mm, leader.root
        else:
            pgd = self.new_root(task.job)
            mm = self.new("mm_struct")
            total = self.rng.randrange(500, 60000)
            mm.put(
                pgd=pgd,
                map_count=20,
                mm_users__counter=1,
                mm_count__counter=1,
                total_vm=total,
                owner=task.address,
            )
            task.mm = mm.address
            task.root = self.guest.machine_address(pgd)
        task.view.set(mm=task.mm, active_mm=task.mm)

    def new_root(self, job: Job) -> int:
        """Allocates a root page table; returns its virtual address."""
        return self.direct(self.guest.allocate())

    def task(self, pid: int) -> Task:
        """The task with a pid."""
        return next(task for task in self.tasks if task.job.pid == pid)

    def threads(self, leader: Task) -> list[Task]:
        """The tasks of a thread group, its leader first."""
        if leader.idle:
            return [leader]
        return [t for t in self.tasks if t.job.group == leader.job.pid]

    def link_tasks(self) -> None:
        """Links the leaders, the children of each task, and the threads of each group."""
        by_pid = {task.job.pid: task for task in self.tasks} | {0: self.idle[0]}
        leaders = [self.idle[0], *(t for t in self.tasks if t.job.group == t.job.pid)]
        self.link([t.view.at("tasks") for t in leaders])
        children: dict[int, list[int]] = {}
        for leader in leaders:
            group = self.threads(leader)
            self.link_threads(leader, group)
            for thread in group:
                parent = by_pid.get(thread.job.parent, self.idle[0])
                thread.view.put(
                    group_leader=leader.address,
                    real_parent=parent.address,
                    parent=parent.address,
                )
            if not leader.idle:
                siblings = children.setdefault(by_pid[leader.job.parent].address, [])
                siblings.append(leader.view.at("sibling"))
        for idle in self.idle[1:]:
            boot = self.idle[0].address
            idle.view.put(group_leader=idle.address, real_parent=boot, parent=boot)
            self.link([idle.view.at("tasks")])
            self.link_threads(idle, [idle])
        for task in (*self.idle, *self.tasks):
            self.link([task.view.at("children"), *children.get(task.address, ())])

    def link_threads(self, leader: Task, group: Sequence[Task]) -> None:
        """Links the threads of a group."""
        raise NotImplementedError

    # Page tables, log, P2M

    def modules_start(self) -> int:
        """The address of the first module."""
        raise NotImplementedError

    def load_modules(self, sources: Sequence[modules.Source]) -> None:
        """Loads modules and links them into the kernel's list, the first at its head.

        Tasks of ``sleeps_in_modules`` are put to sleep.
        """
        self.modules = modules.load(self.image, self.guest, sources, self.modules_start())
        functions = dict(self.image.text.functions)
        for module in self.modules:
            functions |= module.text.functions
        self.text = replace(self.image.text, functions=functions)
        heads = [self.image.symbol("modules")]
        self.link(heads + [module.view.at("list") for module in self.modules])
        usual = self.rng
        for task in self.tasks:
            for comm, chain in self.sleeps_in_modules.items():
                if task.job.comm.startswith(comm):
                    # A generator of its own leaves the other random values as they are.
                    self.rng = random.Random(task.job.pid)
                    self.sleep(task, chain)
        self.rng = usual

    def nearest(self, pc: int) -> str | None:
        """The symbol at or below an address, as crash names it."""
        for module in self.modules:
            if module.base <= pc < module.base + module.size:
                functions = module.text.functions.values()
                below = [f for f in functions if f.address <= pc]
                return max(below, key=lambda f: f.address).name if below else None
        return self.image.nearest(pc)

    def module_at(self, pc: int) -> str | None:
        """The module that contains an address."""
        return next((m.source.name for m in self.modules if m.base <= pc < m.base + m.size), None)

    def root_address(self) -> int:
        """The machine address of the kernel's own root."""
        raise NotImplementedError

    def page_tables(self, root: int) -> PageTables:
        """The page tables below a root; new tables are pages of the guest."""
        return PageTables(self.paging, self.guest.machine, self.guest.page_table_page, root // PAGE)

    def log_lines(self, everyday: int, last: Sequence[Line]) -> list[Line]:
        """The messages of the log, the panic last."""
        lines = log_messages.boot(self.facts, self.image.spec.banner, self.rng, everyday)
        return [*lines, *last]

    def write_log(self, lines: list[Line]) -> None:
        """Writes the messages in the format of this version."""
        raise NotImplementedError

    def write_p2m(self) -> LinearList:
        """Writes the kernel's own P2M, and the variables that point to it."""
        raise NotImplementedError

    def swap_root(self, task: Task, mfn: int) -> None:
        """Moves a task's root to the frame ``mfn``."""
        pfn = self.guest.p2m.index(task.root // PAGE)
        self.guest.swap_in(pfn, mfn)
        task.root = self.guest.mfn(pfn) * PAGE
