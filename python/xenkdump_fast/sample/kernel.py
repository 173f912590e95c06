"""A kernel that runs in a domain: what all ages have in common."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import loglines, stack
from .facts import Facts
from .guest import Guest, Linear
from .image import Image
from .machine import PAGE
from .paging import PageTables, Paging
from .printk import Line
from .roster import Job, leaders_first
from .tasks import Task
from .view import View


class Kernel:
    """Boots an image in a guest: writes its variables, tasks and stacks.

    The ages derive from it; what they do differently are methods of their own.
    """

    paging: Paging
    stack_size: int
    pt_regs: str = "pt_regs"

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
        spec = image.spec
        top = spec.page_offset + guest.pages * PAGE
        guest.linear.append(Linear(spec.page_offset, top, 0))
        if spec.map_base != spec.page_offset:
            guest.linear.append(Linear(spec.map_base, spec.map_base + (1 << 30), 0))
        first = (image.end - spec.map_base) // PAGE
        guest.start_allocating(first)
        guest.write(image.text.base, image.text.code)
        guest.write(spec.rodata, bytes(image.rodata))

    def variable(self, name: str) -> View:
        """A variable of the image."""
        placed = self.image.variables[self.image.spec.aliases.get(name, name)]
        return View(self.guest, placed.variable.type, placed.address)

    def has(self, name: str) -> bool:
        """Whether the image has such a variable."""
        return name in self.image.variables

    def assign(self, **values: int | bytes | str | list[int]) -> None:
        """Writes variables, as long as the kernel has them."""
        for name, value in values.items():
            if self.has(name):
                self.variable(name)[""] = value

    def per_cpu(self, name: str, cpu: int) -> View:
        """A CPU's copy of a per-cpu variable."""
        placed = self.image.variables[name]
        start = self.image.starts[".data..percpu"]
        return View(self.guest, placed.variable.type, self.percpu[cpu] + placed.address - start)

    def new(self, name: str, align: int = 64) -> View:
        """A fresh struct."""
        struct = self.types.struct(name)
        return View(self.guest, struct, self.guest.kmalloc(struct.size, align))

    def list_head(self, address: int) -> None:
        """An empty list."""
        word = self.word
        self.guest.write(address, address.to_bytes(word, "little") * 2)

    def link(self, heads: Sequence[int]) -> None:
        """A circular list through the given ``list_head``s, in their order."""
        for i, at in enumerate(heads):
            following = heads[(i + 1) % len(heads)]
            before = heads[i - 1]
            self.guest.write(
                at, following.to_bytes(self.word, "little") + before.to_bytes(self.word, "little")
            )

    # -- stacks -------------------------------------------------------------------------------

    def new_stack(self, job: Job) -> int:
        """The lowest address of a fresh kernel stack."""
        raise NotImplementedError

    def stale(self, low: int, chain: Sequence[str], sp: int) -> stack.Stack:
        """A stack with the remains of deeper calls on it."""
        every = list(self.sleeps().values())
        out = stack.Stack(self.word, low, low + self.stack_size, sp)
        for _ in range(2):
            other = self.rng.choice(every)
            out.sp = sp - self.word * self.rng.randrange(0, 40)
            out.registers = {}
            stack.run(self.image.text, out, other[:-1], self.rng)
        out.sp = sp
        out.registers = {}
        return out

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """The chains that tasks of this kernel sleep in."""
        raise NotImplementedError

    # -- tasks --------------------------------------------------------------------------------

    def make_tasks(self, jobs: Sequence[Job]) -> None:
        """The idle tasks, then every job's."""
        for cpu in range(self.cpus):
            comm = f"swapper/{cpu}"
            self.idle.append(self.make_task(Job(0, comm, "idle", "R", cpu, 0), idle=True))
        for job in leaders_first(jobs):
            self.tasks.append(self.make_task(job, idle=False))
        self.link_tasks()

    def make_task(self, job: Job, idle: bool) -> Task:
        """One task."""
        raise NotImplementedError

    def link_tasks(self) -> None:
        """Parents, lists of threads and of tasks."""
        raise NotImplementedError

    def task(self, pid: int) -> Task:
        """The task of that pid."""
        return next(task for task in self.tasks if task.job.pid == pid)

    # -- the rest -----------------------------------------------------------------------------

    def log_lines(self, everyday: int) -> list[Line]:
        """What the kernel said, the panic last."""
        facts = self.facts
        lines = loglines.boot(facts, self.image.spec.banner, self.rng, everyday)
        lines.append(Line(facts.uptime - 0.002, 6, facts.panic))
        return lines

    def page_tables(self, root: int) -> PageTables:
        """Tables from an mfn of a top page on; their pages are the guest's own."""
        return PageTables(self.paging, self.guest.machine, self.guest.page_table_page, root)
