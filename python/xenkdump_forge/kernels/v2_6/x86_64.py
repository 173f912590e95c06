"""A running Linux 2.6.16 on x86_64 under Xen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ...code import stack
from ...memory.paging import X86_64
from .. import page_tables_64
from ..tasks import Task
from . import x86_64_functions as functions
from .common import Linux26

KERNEL_CS, KERNEL_SS = 0xE033, 0xE02B

_SYSCALLS = {"sys_read": 0, "sys_write": 1, "sys_poll": 7, "sys_select": 23, "sys_wait4": 61}
#: Callee-saved registers, which the entry of a system call does not push.
_NOT_SAVED = ("r15", "r14", "r13", "r12", "rbp", "rbx")


class Linux26X8664(Linux26):
    """Per-cpu data is found through the PDA; the kernel runs in ring 3."""

    paging = X86_64
    user_cs, user_ss = 0x33, 0x2B
    ip, sp = "rip", "rsp"
    machine_name = "x86_64"
    fixed_registers: ClassVar[dict[int, dict[str, int]]] = {}
    sleeps_in_modules: ClassVar = functions.IN_MODULE

    def sleeps(self) -> dict[str, tuple[str, ...]]:
        """The call chains of 2.6."""
        return functions.SLEEPS

    def modules_start(self) -> int:
        """MODULES_VADDR."""
        return 0xFFFFFFFF88000000

    def user_registers(self, task: Task, syscall: str) -> dict[str, int]:
        """All registers for an exception; a system call only saves the caller-saved registers."""
        rng = self.rng
        rip = 0x2AAAAA000000 + rng.randrange(0x1000, 0xFFFFF)
        values = {
            "r11": 0x246,
            "r10": rng.randrange(0, 64),
            "r9": 0,
            "r8": rng.randrange(0, 64),
            "rax": -38 & 0xFFFFFFFFFFFFFFFF,
            "rcx": rip,
            "rdx": rng.randrange(0, 4096),
            "rsi": rng.randrange(0x500000, 0x600000, 8),
            "rdi": rng.randrange(0, 32),
            "orig_rax": _SYSCALLS.get(syscall, 202) if syscall else (1 << 64) - 1,
            "rip": rip,
            "cs": self.user_cs,
            "eflags": 0x246,
            "rsp": rng.randrange(0x7FFFFF800000, 0x7FFFFFFFF000, 8),
            "ss": self.user_ss,
        }
        if not syscall:
            values |= {name: rng.randrange(0, 4096) for name in _NOT_SAVED}
        return values | self.fixed_registers.get(task.job.pid, {})

    def user_start(self, foot: int, syscall: str) -> int:
        """A system call's frame begins at r11: the callees' frames overlap the rest of pt_regs."""
        return foot + (self.types.offset("pt_regs.r11") if syscall else 0)

    def kernel_thread_start(self, out: stack.Stack, foot: int) -> None:
        """rsp points to the pt_regs that kernel_thread() made."""
        values = {"rip": self.image.symbol("child_rip"), "cs": KERNEL_CS, "eflags": 0x200}
        for offset, member in self.types.struct("pt_regs").flattened():
            out.poke(foot + offset, values.get(member.name or "", 0))
        out.sp = foot

    def sleep(self, task: Task, chain: Sequence[str]) -> None:
        """switch_to() has pushed the frame pointer."""
        out = self.fill_stack(task, chain)
        resume = self.image.symbol("thread_return")
        frame = stack.StackFrame(resume, out.sp, None, "schedule")
        task.frames = [frame, *task.frames]
        out.push(out.registers.get("rbp", 0))
        task.view["thread.rsp"] = out.sp
        task.switched_at = out.sp
        out.poke(out.sp - 8, resume)  # stale, from the last switch to the task
        task.view["thread.rsp0"] = task.stack + self.stack_size
        self.store_stack(task, out)

    def run_vcpu(self, task: Task, chain: Sequence[str]) -> dict[str, int]:
        """Runs ``chain``, which ends in a hypercall; returns the vCPU's registers."""
        out = self.fill_stack(task, chain)
        hypercall = chain[0]
        rip = self.image.text.labels[hypercall][0] + functions.HYPERCALL_RETURN
        flags = 0x246 if task.idle else 0x46
        last_switch = out.sp - 0x180
        out.push(rip)
        out.push(flags)
        registers = dict.fromkeys((*_NOT_SAVED, "r10", "r9", "r8", "rdx"), 0) | out.registers
        registers |= {
            "rax": functions.HYPERCALLS[hypercall],
            "rcx": rip,
            "r11": flags,
            "rdi": 1,
            "rsi": 0,
            "rip": rip,
            "cs": KERNEL_CS,
            "rflags": flags,
            "rsp": out.sp,
            "ss": KERNEL_SS,
        }
        task.registers = registers
        first = stack.StackFrame(rip, out.sp, None, "hypercall_page", True)
        task.frames = [first, *task.frames]
        task.view["thread.rsp0"] = task.stack + self.stack_size
        task.view["thread.rsp"] = last_switch
        self.store_stack(task, out)
        return registers

    def point_at_percpu(self, cpu: int, task: Task, offset: int) -> None:
        """Writes the PDA: x86_64 has no __per_cpu_offset before 2.6.30."""
        at = self.variable("boot_cpu_pda").at(f"[{cpu}]")
        self.variable("_cpu_pda")[f"[{cpu}]"] = at
        pda = self.variable("boot_cpu_pda")
        pda[f"[{cpu}].pcurrent"] = task.address
        pda[f"[{cpu}].data_offset"] = offset
        pda[f"[{cpu}].cpunumber"] = cpu
        pda[f"[{cpu}].kernelstack"] = task.stack + self.stack_size - 40
        pda[f"[{cpu}].irqcount"] = -1

    def pda(self, cpu: int) -> int:
        """The address of a CPU's PDA, its gs base."""
        return self.variable("boot_cpu_pda").at(f"[{cpu}]")

    def root_address(self) -> int:
        """The machine address of init_level4_pgt."""
        return self.guest.machine_address(self.image.symbol("init_level4_pgt"))

    def write_facts(self) -> None:
        """Adds the root of init_mm."""
        super().write_facts()
        self.variable("init_mm")["pgd"] = self.image.symbol("init_level4_pgt")

    def write_page_tables(self, hypervisor: dict[int, int]) -> None:
        """Maps everything; ``hypervisor`` has Xen's entries of an L4 table."""
        page_tables_64.write(self, hypervisor, no_execute=0)
