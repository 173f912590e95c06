"""A running Linux 2.6.16 or 2.6.18 on i386 under Xen, with and without PAE."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import ClassVar

from ...code import stack
from ...memory import p2m
from ...memory.guest import Guest
from ...memory.machine import PAGE
from ...memory.paging import X86, X86_PAE
from .. import page_tables_32
from ..facts import Facts
from ..image import Image
from ..task_table import Job
from ..tasks import Task
from . import i386_functions as functions
from .common import Linux26

KERNEL_CS, KERNEL_SS = 0x61, 0x69

_SYSCALLS = {"sys_read": 3, "sys_write": 4, "sys_wait4": 114, "sys_select": 142, "sys_poll": 168}


class Linux26I386(Linux26):
    """The kernel runs in ring 1; Xen is at the top of every address space."""

    padding = 8
    user_cs, user_ss = 0x73, 0x7B
    ip, sp = "eip", "esp"
    machine_name = "i686"
    #: Fixed registers on entry to the kernel: pid -> values.
    fixed_registers: ClassVar[dict[int, dict[str, int]]] = {}
    ends_at_cpu_idle = False
    sleeps_in_modules: ClassVar = functions.IN_MODULE

    def __init__(
        self,
        image: Image,
        guest: Guest,
        facts: Facts,
        cpus: int,
        rng: random.Random,
    ) -> None:
        pae = image.types.sizeof("pgd_t") == 8
        self.paging = X86_PAE if pae else X86
        # Xen has 64 MiB at the top of every address space, 168 MiB with PAE; below it is vmalloc
        # space.
        self.lowmem_end = 0xED800000 if pae else 0xF8000000
        super().__init__(image, guest, facts, cpus, rng)
        self._kernel_root = self.new_root(Job(0, "", ""))

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """The call chains of 2.6."""
        chains = dict(functions.SLEEPS)
        if self.ends_at_cpu_idle:
            chains["idle0"] = chains["idle0"][:2]
        return chains

    def modules_start(self) -> int:
        """In vmalloc space."""
        return self.lowmem_end + (8 << 20)

    def new_root(self, job: Job) -> int:
        """A page for a page directory or a PDPT."""
        return self.direct(self.guest.allocate())

    def user_registers(self, task: Task, syscall: str) -> dict[str, int]:
        """The registers of a system call by ``int $0x80``."""
        rng = self.rng
        values = {
            "ebx": rng.randrange(0, 64),
            "ecx": rng.randrange(0x8049000, 0x80F9000, 4),
            "edx": rng.randrange(0, 4096),
            "esi": rng.randrange(0, 4096),
            "edi": rng.randrange(0xB7E00000, 0xB7F90000, 4),
            "ebp": rng.randrange(0xBF800000, 0xBFFFF000, 4),
            "eax": -38 & 0xFFFFFFFF,
            "xds": 0x7B,
            "xes": 0x7B,
            "orig_eax": _SYSCALLS.get(syscall, 102) if syscall else 0xFFFFFFFF,
            "eip": rng.randrange(0xB7E00000, 0xB7F90000),
            "xcs": self.user_cs,
            "eflags": 0x246,
            "esp": rng.randrange(0xBF800000, 0xBFFFF000, 4),
            "xss": self.user_ss,
        }
        return values | self.fixed_registers.get(task.job.pid, {})

    def kernel_thread_start(self, out: stack.Stack, foot: int) -> None:
        """The thread was started by an iret to kernel mode, which does not pop esp and ss."""
        values = {"ebx": self.image.symbol("kthread"), "xds": 0x7B, "xes": 0x7B}
        values |= {"orig_eax": -1, "eip": self.image.symbol("kernel_thread_helper")}
        values |= {"xcs": KERNEL_CS, "eflags": 0x286}
        for offset, member in self.types.struct("pt_regs").flattened():
            out.poke(foot + offset, values.get(member.name or "", 0))
        out.sp = foot + self.types.offset("pt_regs.esp")
        out.push(self.rng.randrange(0xC8000000, 0xCFFFF000, 16))  # the thread's argument

    def sleep(self, task: Task, chain: Sequence[str]) -> None:
        """switch_to() has pushed the frame pointer, and the flags since 2.6.18."""
        out = self.fill_stack(task, chain)
        resume = self.image.text.labels[".resume"][0]
        frame = stack.StackFrame(resume, out.sp, None, "schedule")
        task.frames = [frame, *task.frames]
        if self.has_thread_group:
            out.push(0x286)
        out.push(out.registers.get("ebp", 0))
        task.view["thread.esp"] = out.sp
        task.view["thread.eip"] = resume
        task.view["thread.esp0"] = task.stack + self.stack_size - self.padding
        task.switched_at = out.sp
        self.store_stack(task, out)

    def run_vcpu(self, task: Task, chain: Sequence[str]) -> dict[str, int]:
        """Runs ``chain``, which ends in a hypercall; returns the vCPU's registers."""
        return self._hypercall(task, self.fill_stack(task, chain), chain[0])

    def run_oops(self, task: Task) -> dict[str, int]:
        """Lets a module's timer, which interrupts the idle task, write to address 0."""
        out = self.fill_stack(task, functions.IDLE)
        idle = self.text.functions["xen_idle"]
        at = self._interrupt(task, out, idle.sites["safe_halt"], "xen_idle")
        out.push(at)
        calls = stack.run(self.text, out, functions.TIMER, self.rng)
        task.frames = [*calls, *task.frames]
        timer = self.text.functions["mirror_timeout"]
        at = self._interrupt(task, out, timer.sites["schedule_timeout"], "mirror_timeout")
        calls = stack.run(self.text, out, functions.OOPS, self.rng)
        task.frames = [*calls, *task.frames]
        registers = self._hypercall(task, out, functions.OOPS[0])
        # crash_setup_regs() copied the registers of the fault, with their esp and ss.
        copy = next(frame for frame in task.frames if frame.symbol == "crash_kexec").sp
        pt_regs = self.types.struct("pt_regs")
        saved = out.data[at - out.low :][: pt_regs.size]
        for offset in range(0, pt_regs.size, 4):
            out.poke(copy + offset, int.from_bytes(saved[offset : offset + 4], "little"))
        out.poke(copy + self.types.offset("pt_regs.esp"), at + self.types.offset("pt_regs.esp"))
        out.poke(copy + self.types.offset("pt_regs.xss"), KERNEL_SS)
        self.store_stack(task, out)
        return registers

    def _interrupt(self, task: Task, out: stack.Stack, pc: int, name: str) -> int:
        """Saves the registers of the kernel, interrupted at ``pc``; returns their address."""
        values = {"eip": pc, "xcs": KERNEL_CS, "eflags": 0x10202, "xds": 0x7B, "xes": 0x7B}
        values["orig_eax"] = -1
        members = [m.name or "" for _, m in self.types.struct("pt_regs").flattened()][:-2]
        words = [values.get(name, out.registers.get(name, 0)) for name in members]
        task.frames = [stack.interrupt(out, name, pc, words), *task.frames]
        return out.sp

    def _hypercall(self, task: Task, out: stack.Stack, hypercall: str) -> dict[str, int]:
        eip = self.image.text.labels[hypercall][0] + functions.HYPERCALL_RETURN
        registers = dict.fromkeys(("ebx", "esi", "edi", "ebp"), 0) | out.registers
        registers |= {
            "eax": functions.HYPERCALLS[hypercall],
            "ebx": 1,
            "ecx": 0,
            "edx": 0,
            "eip": eip,
            "cs": KERNEL_CS,
            "eflags": 0x246 if task.idle else 0x46,
            "esp": out.sp,
            "ss": KERNEL_SS,
            "ds": 0x7B,
            "es": 0x7B,
        }
        task.registers = registers
        first = stack.StackFrame(eip, out.sp, None, "hypercall_page", True)
        task.frames = [first, *task.frames]
        self._save_fixed_regs(task, out)
        task.view["thread.esp0"] = task.stack + self.stack_size - self.padding
        task.view["thread.esp"] = out.sp - 0x90
        task.view["thread.eip"] = self.image.text.labels[".resume"][0]
        self.store_stack(task, out)
        return registers

    def _save_fixed_regs(self, task: Task, out: stack.Stack) -> None:
        """crash_setup_regs() stored the registers of crash_kexec() in its frame, as a pt_regs."""
        frame = next((frame for frame in task.frames if frame.symbol == "crash_kexec"), None)
        if frame is None:
            return
        inside = self.image.text.functions["crash_kexec"].address + 8
        values = {"xds": 0x7B, "xes": 0x7B, "orig_eax": 0, "eip": inside}
        values |= {"xcs": KERNEL_CS, "eflags": 0x46, "esp": frame.sp, "xss": KERNEL_SS}
        for offset, member in self.types.struct("pt_regs").flattened():
            name = member.name or ""
            out.poke(frame.sp + offset, values.get(name, out.registers.get(name, 0)))

    def point_at_percpu(self, cpu: int, task: Task, offset: int) -> None:
        """Writes __per_cpu_offset."""
        self.variable("__per_cpu_offset")[f"[{cpu}]"] = offset

    def root_address(self) -> int:
        """The machine address of the table that swapper_pg_dir points to."""
        return self.guest.machine_address(self._kernel_root)

    def write_facts(self) -> None:
        """Adds swapper_pg_dir, a pointer under Xen."""
        super().write_facts()
        self.assign(swapper_pg_dir=self._kernel_root)
        self.variable("init_mm")["pgd"] = self._kernel_root
        low = min(self.guest.pages, (self.lowmem_end - self.image.spec.page_offset) // PAGE)
        self.assign(max_low_pfn=low, high_memory=self.direct(low))

    def write_frame_lists(self, entries: p2m.LinearList) -> int:
        """Writes the frame-list tree and the pointers to its pages; returns the top mfn."""
        top = self.guest.allocate()
        mids = [self.guest.allocate() for _ in range(-(-len(entries.pfns) // 1024))]
        for i, mid in enumerate(mids):
            part = [self.guest.mfn(pfn) for pfn in entries.pfns[i * 1024 : (i + 1) * 1024]]
            self.guest.write_pfn(mid, b"".join(m.to_bytes(4, "little") for m in part))
            self.variable("pfn_to_mfn_frame_list")[f"[{i}]"] = self.direct(mid)
        mfns = [self.guest.mfn(mid) for mid in mids]
        self.guest.write_pfn(top, b"".join(m.to_bytes(4, "little") for m in mfns))
        self.assign(pfn_to_mfn_frame_list_list=self.direct(top))
        return self.guest.mfn(top)

    def write_page_tables(self, hypervisor: dict[int, int]) -> None:
        """Maps low memory; ``hypervisor`` has Xen's page-directory entries."""
        page_tables_32.write(self, hypervisor)
