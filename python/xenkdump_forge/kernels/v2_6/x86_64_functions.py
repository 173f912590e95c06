"""Linux 2.6.16 on x86_64 under Xen: functions, call chains, entry code."""

from __future__ import annotations

from ...code.asm import Asm
from ...code.text import Frame, Handwritten, Recipe, epilogue, names, prologue
from ...debuginfo.cparse import parse
from ...debuginfo.ctype import X86_64
from ...elf import format as elf
from ..image import Spec
from . import i386_functions as i386
from .declarations import TYPES, VARIABLES, select

PAGE_OFFSET = 0xFFFF880000000000
KERNEL_MAP = 0xFFFFFFFF80000000
TEXT = 0xFFFFFFFF80100000
SYS_CALL_TABLE = 0xFFFFFFFF80141000

#: Functions with another name than on i386.
_RENAMED = {"kernel_thread_helper": "child_rip", "error_code": "error_entry"}


def _renamed(chain: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_RENAMED.get(name, name) for name in chain)


_IDLE0 = names("start_kernel x86_64_start_kernel")

#: Call chains of sleeping tasks, innermost first.
SLEEPS: dict[str, tuple[str, ...]] = {
    **{name: _renamed(chain) for name, chain in i386.SLEEPS.items()},
    "accept": names("schedule schedule_timeout inet_csk_accept inet_accept sys_accept system_call"),
    "stopped": names(
        "schedule finish_stop get_signal_to_deliver do_signal do_notify_resume retint_signal"
    ),
    "idle0": ("schedule", "cpu_idle", *_IDLE0),
}

#: Call chains of tasks that sleep in a module.
IN_MODULE = {name: _renamed(chain) for name, chain in i386.IN_MODULE.items()}

#: Call chains of running vCPUs at the time of the crash.
RUNNING: dict[str, tuple[str, ...]] = {
    "panic": i386.RUNNING["panic"],
    "idle0": (*names(".sched_op safe_halt xen_idle cpu_idle"), *_IDLE0),
}

#: Numbers of the hypercalls that a vCPU may be in.
HYPERCALLS = i386.HYPERCALLS
#: Offset of the return address in a stub: ``push %rcx; push %r11; mov $nr, %eax; syscall``.
HYPERCALL_RETURN = 10


def _schedule(frame: Frame, rsp: int) -> Handwritten:
    """schedule() with switch_to() in it, which calls __switch_to on the next task's stack."""

    def emit(asm: Asm) -> None:
        prologue(asm, frame)
        asm.emit("4889d6 31c0")
        asm.emit("55 4889f5")
        asm.emit(b"\x48\x89\xa7" + rsp.to_bytes(4, "little"))
        asm.emit(b"\x48\x8b\xa6" + rsp.to_bytes(4, "little"))
        asm.call("__switch_to")
        asm.label("thread_return")
        asm.emit("65488b342500000000 4889ee 5d")
        epilogue(asm, frame)

    return emit


def _system_call(asm: Asm) -> None:
    """Saves nine registers; callee-saved ones stay in place."""
    asm.emit("4883ec50")  # sub $0x50, %rsp
    for code in ("48897c2440", "4889742438", "4889542430", "48894c2428", "4889442420"):
        asm.emit(code)
    asm.emit("4c89442418 4c894c2410 4c89542408 4c891c24 4889442448")
    asm.emit("483d16010000 0f8700000000 4c89d1")
    asm.call_indirect(b"\xff\x14\xc5" + (SYS_CALL_TABLE & 0xFFFFFFFF).to_bytes(4, "little"), "*")
    asm.label("ret_from_sys_call")
    asm.emit("4889442420 bffffe0000")


def _error_entry(asm: Asm) -> None:
    """The call of the handler is the last instruction before ``error_exit``."""
    asm.emit("fc 4883ec70 4889742468 488b742470 4889542460 48894c2458 4889742450")
    asm.label("error_call_handler")
    asm.emit("48897c2470 4889e7 488b742478 48c7442478ffffffff")
    asm.call_indirect("ffd0", "*")
    asm.label("error_exit")
    asm.emit("4c8b3c24 4c8b742408 e900000000")


def _page_fault(asm: Asm) -> None:
    asm.emit("50 488d0500000000")
    asm.jump("error_entry")


def _child_rip(asm: Asm) -> None:
    asm.emit("4889f8 4889f7")
    asm.call_indirect("ffd0", "*")
    asm.emit("31ff")
    asm.call("do_exit")


def _retint_signal(asm: Asm) -> None:
    asm.emit("4883ec30 4889e7 31f6")
    asm.call("do_notify_resume")
    asm.emit("4883c430 ebe0")


def _ret_from_fork(asm: Asm) -> None:
    asm.call("schedule_tail")
    asm.emit("65488b0c2510000000 eb00")


def _startup_64(asm: Asm) -> None:
    asm.emit("48c7c400000000 6a00 9d 4889f7")
    asm.jump("x86_64_start_kernel")


def _tail_jump(target: str) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.emit("4889fe")
        asm.jump(target)

    return emit


def _hypercall_page(asm: Asm) -> None:
    """The hypercall page of 64-bit PV; each stub pushes what ``syscall`` clobbers."""
    numbers = {number: name for name, number in i386.HYPERCALLS.items()}
    for number in range(128):
        if number in numbers:
            asm.label(numbers[number])
        code = bytes.fromhex("51 4153 b8") + number.to_bytes(4, "little")
        asm.emit((code + bytes.fromhex("0f05 415b 59 c3")).ljust(32, b"\0"))


def spec(release: str, version: str, banner: str) -> Spec:
    """The definition of the image."""
    types = parse(select(TYPES + VARIABLES, {"x86_64", "16", "nopae"}), X86_64)
    frame = Frame(("rbp", "r15", "r14", "r13", "r12", "rbx"), 88)
    recipe = Recipe(
        word=8,
        base=TEXT,
        chains=[*SLEEPS.values(), *RUNNING.values(), ("do_exit", "child_rip"), i386.TIMER[1:3]],
        frames={"schedule": frame},
        handwritten={
            "startup_64": _startup_64,
            "hypercall_page": _hypercall_page,
            "ret_from_fork": _ret_from_fork,
            "system_call": _system_call,
            "page_fault": _page_fault,
            "error_entry": _error_entry,
            "retint_signal": _retint_signal,
            "child_rip": _child_rip,
            "schedule": _schedule(frame, types.offset("task_struct.thread.rsp")),
            "sysrq_handle_crashdump": _tail_jump("crash_kexec"),
            "__switch_to": lambda asm: asm.emit("c3"),
            "schedule_tail": _tail_jump("finish_task_switch"),
            "finish_task_switch": lambda asm: asm.emit("c3"),
        },
        labels=tuple(i386.HYPERCALLS),
        indirect={
            "kthread": "ff5310",
            "__handle_sysrq": "ff5208",
            "vfs_write": "41ff5410",
            "vfs_read": "ff5010",
            "sync_page": "ffd0",
            "__wait_on_bit_lock": "ffd7",
            "__handle_mm_fault": "ff5108",
        },
        addresses={"startup_64": TEXT, "hypercall_page": TEXT + 0x1000},
    )
    return Spec(
        release=release,
        kallsyms="2.6.10",
        version=version,
        banner=banner,
        types=types,
        layout=elf.ELF64,
        machine=elf.EM_X86_64,
        recipe=recipe,
        rodata=0xFFFFFFFF80140000,
        data=0xFFFFFFFF80180000,
        percpu=0xFFFFFFFF801A0000,
        bss=0xFFFFFFFF801A8000,
        map_base=KERNEL_MAP,
        page_offset=PAGE_OFFSET,
        aliases={"jiffies": "jiffies_64"},
        addresses={"sys_call_table": SYS_CALL_TABLE},
        dwarf=2,
        debug_frame=True,
    )
