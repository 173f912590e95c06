"""Linux 6.1 on x86_64: functions, call chains, entry code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...code.asm import Asm, Row
from ...code.text import Frame, Handwritten, Recipe, names
from ...debuginfo.cparse import parse
from ...debuginfo.ctype import X86_64
from ...elf import format as elf
from ..image import Spec
from .declarations import CPUS, for_cpus

RELEASE = "6.1.0-56-amd64"
VERSION = "#1 SMP PREEMPT_DYNAMIC xenkdump_fast sample (2026-11-16)"
BANNER = f"Linux version {RELEASE} (builder@example) (gcc 12.2.0, GNU ld 2.40) {VERSION}\n"

TEXT = 0xFFFFFFFF81000000
RODATA = 0xFFFFFFFF81800000
DATA = 0xFFFFFFFF81C00000
BSS = 0xFFFFFFFF82000000
KERNEL_MAP = 0xFFFFFFFF80000000
PAGE_OFFSET = 0xFFFF888000000000

_SYSCALL = ("do_syscall_64", "entry_SYSCALL_64")
_KTHREAD = ("kthread", "ret_from_fork")
_SLEEP = ("__switch_to_asm", "__schedule", "schedule")
_READ = ("vfs_read", "ksys_read", "__x64_sys_read", *_SYSCALL)


def _sleep(chain: str, *outer: str) -> tuple[str, ...]:
    return (*_SLEEP, *names(chain), *outer)


#: The call chain of the journal's thread, with two functions of the module jbd2.
IN_MODULE = (*_SLEEP, "jbd2_journal_wait", "jbd2_journal_thread", *_KTHREAD)

#: Call chains of sleeping tasks, innermost first.
SLEEPS: dict[str, tuple[str, ...]] = {
    "wait": _sleep("do_wait kernel_wait4 __do_sys_wait4 __x64_sys_wait4", *_SYSCALL),
    "poll": _sleep(
        "schedule_hrtimeout_range_clock schedule_hrtimeout_range poll_schedule_timeout.constprop.0 "
        "do_sys_poll __x64_sys_poll",
        *_SYSCALL,
    ),
    "select": _sleep(
        "schedule_hrtimeout_range_clock schedule_hrtimeout_range do_select core_sys_select "
        "kern_select __x64_sys_select",
        *_SYSCALL,
    ),
    "epoll": _sleep(
        "schedule_hrtimeout_range_clock ep_poll do_epoll_wait __x64_sys_epoll_wait", *_SYSCALL
    ),
    "futex": _sleep(
        "futex_wait_queue futex_wait do_futex __x64_sys_futex",
        *_SYSCALL,
    ),
    "nanosleep": _sleep("do_nanosleep hrtimer_nanosleep __x64_sys_nanosleep", *_SYSCALL),
    "tty": _sleep("schedule_timeout wait_woken n_tty_read tty_read", *_READ),
    "pipe": _sleep("pipe_read", *_READ),
    "syslog": _sleep("do_syslog kmsg_read proc_reg_read", *_READ),
    "accept": _sleep(
        "schedule_timeout inet_csk_accept inet_accept do_accept __sys_accept4 __x64_sys_accept",
        *_SYSCALL,
    ),
    "pause": _sleep("__x64_sys_pause", *_SYSCALL),
    "signal": _sleep("do_sigtimedwait __x64_sys_rt_sigtimedwait", *_SYSCALL),
    "stopped": _sleep(
        "do_signal_stop get_signal arch_do_signal_or_restart "
        "exit_to_user_mode_prepare syscall_exit_to_user_mode",
        *_SYSCALL,
    ),
    "fault": _sleep(
        "io_schedule folio_wait_bit_common filemap_fault __do_fault do_fault __handle_mm_fault "
        "handle_mm_fault do_user_addr_fault exc_page_fault asm_exc_page_fault"
    ),
    "journal": _sleep("kjournald2", *_KTHREAD),
    "kthreadd": _sleep("kthreadd ret_from_fork"),
    "worker": _sleep("worker_thread", *_KTHREAD),
    "rescuer": _sleep("rescuer_thread", *_KTHREAD),
    "smpboot": _sleep("smpboot_thread_fn", *_KTHREAD),
    "rcu": _sleep("schedule_timeout rcu_gp_fqs_loop rcu_gp_kthread", *_KTHREAD),
    "rcu_tasks": _sleep("rcu_tasks_one_gp rcu_tasks_kthread", *_KTHREAD),
    "kswapd": _sleep("kswapd_try_to_sleep kswapd", *_KTHREAD),
    "kcompactd": _sleep("schedule_timeout kcompactd", *_KTHREAD),
    "khugepaged": _sleep("schedule_timeout khugepaged", *_KTHREAD),
    "ksmd": _sleep("ksm_scan_thread", *_KTHREAD),
    "oom_reaper": _sleep("oom_reaper", *_KTHREAD),
    "kauditd": _sleep("kauditd_thread", *_KTHREAD),
    "kdevtmpfs": _sleep("devtmpfs_work_loop devtmpfsd", *_KTHREAD),
    "khungtaskd": _sleep("schedule_timeout watchdog", *_KTHREAD),
    "xenwatch": _sleep("xenwatch_thread", *_KTHREAD),
    "xenbus": _sleep("xb_read process_msg xenbus_thread", *_KTHREAD),
    "idle0": (
        *_SLEEP[:2],
        *names(
            "schedule_idle do_idle cpu_startup_entry rest_init arch_call_rest_init start_kernel "
            "xen_start_kernel startup_xen"
        ),
    ),
    "idle": (
        *_SLEEP[:2],
        *names(
            "schedule_idle do_idle cpu_startup_entry cpu_bringup_and_idle asm_cpu_bringup_and_idle"
        ),
    ),
}

_HALT = names(".hypercall xen_safe_halt default_idle default_idle_call")

#: Call chains of running vCPUs at the time of the crash.
RUNNING: dict[str, tuple[str, ...]] = {
    "panic": (
        *names(
            ".hypercall xen_reboot xen_panic_event notifier_call_chain "
            "atomic_notifier_call_chain panic sysrq_handle_crash __handle_sysrq "
            "write_sysrq_trigger proc_reg_write vfs_write ksys_write __x64_sys_write"
        ),
        *_SYSCALL,
    ),
    "idle0": (*_HALT, *SLEEPS["idle0"][3:]),
    "idle": (*_HALT, *SLEEPS["idle"][3:]),
}

#: Number of HYPERVISOR_sched_op, with which a vCPU blocks or reports a crash.
SCHED_OP = 29

_CALLEE_SAVED = ("rbp", "rbx", "r12", "r13", "r14", "r15")


def _switch_to_asm(sp_offset: int) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.state(Row(offset=8))
        for reg in _CALLEE_SAVED:
            asm.push(reg)
        asm.emit(b"\x48\x89\xa7" + sp_offset.to_bytes(4, "little"))  # mov %rsp, sp(%rdi)
        asm.emit(b"\x48\x8b\xa6" + sp_offset.to_bytes(4, "little"))  # mov sp(%rsi), %rsp
        for reg in reversed(_CALLEE_SAVED):
            asm.pop(reg)
        asm.jump("__switch_to")

    return emit


#: Pushes of rdi rsi rdx rcx rax r8-r11 rbx rbp r12-r15, below the iret frame and orig_rax.
PUSH_REGS = "57 56 52 51 6a da 41 50 41 51 41 52 41 53 53 55 41 54 41 55 41 56 41 57"


def _entry_syscall_64(asm: Asm) -> None:
    asm.state(Row(kind="end"))
    asm.emit("0f01f8")  # swapgs
    asm.label("entry_SYSCALL_64_after_hwframe")
    asm.state(Row(kind="iret"))
    asm.emit("50")
    asm.state(Row(offset=8, kind="iret"))
    asm.emit(PUSH_REGS)
    asm.state(Row(kind="regs"))
    asm.emit("4889e7 4863f0")  # mov %rsp, %rdi; movslq %eax, %rsi
    asm.call("do_syscall_64")
    asm.emit("488b4c2458 0f01f8 480f07")  # ...; swapgs; sysretq


def _asm_exc_page_fault(asm: Asm) -> None:
    asm.state(Row(offset=8, kind="iret"))
    asm.emit("fc")  # cld
    asm.emit(PUSH_REGS)
    asm.state(Row(kind="regs"))
    asm.emit("4889e7 488b742478")  # mov %rsp, %rdi; mov 0x78(%rsp), %rsi
    asm.call("exc_page_fault")
    asm.emit("48cf")  # iretq


def _ret_from_fork(asm: Asm) -> None:
    asm.state(Row(kind="end"))
    asm.emit("4889c7")
    asm.call("schedule_tail")
    asm.emit("4885db 750a")  # test %rbx, %rbx; jne 1f
    asm.state(Row(kind="regs"))
    asm.emit("4889e7")
    asm.call("syscall_exit_to_user_mode")
    asm.emit("48cf")
    asm.state(Row(kind="end"))
    asm.emit("4c89e7")  # 1: mov %r12, %rdi
    asm.call_indirect("ffd3", "*")  # call *%rbx
    asm.emit("48c744245000000000 ebe5")


def _bringup(target: str) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.state(Row(kind="end"))
        asm.emit("31ed")  # xor %ebp, %ebp
        asm.call(target)
        asm.emit("0f0b")  # ud2

    return emit


def _hypercall_page(asm: Asm) -> None:
    """The hypercall page of 64-bit PV. The stubs push two registers, which ORC does not describe.

    ``arch/x86/xen/xen-head.S`` annotates each stub as a function that has pushed nothing.
    """
    names = {SCHED_OP: "sched_op", 32: "event_channel_op", 24: "vcpu_op", 1: "mmu_update"}
    asm.state(Row(offset=8))
    for number in range(128):
        if number in names:
            asm.label(f"xen_hypercall_{names[number]}", 32)
        if number == SCHED_OP:
            asm.label(".hypercall")
        code = bytes.fromhex("51 4153 b8") + number.to_bytes(4, "little")
        asm.emit((code + bytes.fromhex("0f05 415b 59 c3")).ljust(32, b"\xcc"))


def _xen_hypercall_pv(asm: Asm) -> None:
    """Replaces the page since 6.13 and the stable trees of 2024 (XSA-466). ORC describes it."""
    asm.label(".hypercall")
    asm.state(Row(offset=8))
    asm.emit("51")
    asm.state(Row(offset=16))
    asm.emit("4153")
    asm.state(Row(offset=24))
    asm.emit("0f05 415b")
    asm.state(Row(offset=16))
    asm.emit("59")
    asm.state(Row(offset=8))
    asm.ret()


@dataclass(frozen=True)
class Hypercall:
    """The function that makes hypercalls, and the offset of the return address in it."""

    function: str
    symbol: str
    offset: int
    emit: Handwritten


BY_PAGE = Hypercall("hypercall_page", "xen_hypercall_sched_op", 10, _hypercall_page)
BY_FUNCTION = Hypercall("xen_hypercall_pv", "xen_hypercall_pv", 5, _xen_hypercall_pv)


@dataclass(frozen=True)
class Extra:
    """What a kernel has besides: call chains, frames, declarations, entry code."""

    sleeps: Mapping[str, tuple[str, ...]]
    frames: Mapping[str, Frame]
    types: str
    variables: str
    chains: tuple[tuple[str, ...], ...] = ()
    handwritten: Mapping[str, Handwritten] = field(default_factory=dict)


NOTHING = Extra({}, {}, "", "")


def spec(hypercall: Hypercall = BY_FUNCTION, extra: Extra = NOTHING, cpus: int = CPUS) -> Spec:
    """The definition of the image, for at least ``cpus`` CPUs."""
    declared, variables = for_cpus(cpus)
    types = parse(declared + extra.types + variables + extra.variables, X86_64)
    sp_offset = types.offset("task_struct.thread.sp")
    recipe = Recipe(
        word=8,
        base=TEXT,
        chains=[
            *SLEEPS.values(),
            *RUNNING.values(),
            *extra.sleeps.values(),
            *extra.chains,
            ("__switch_to", "finish_task_switch.isra.0"),
            ("schedule_tail", "finish_task_switch.isra.0"),
        ],
        frames={
            "__schedule": Frame(("rbp", "r15", "r14", "r13", "r12", "rbx"), 48, True),
            "do_syscall_64": Frame(("rbp", "r12", "rbx"), 16),
            "schedule": Frame(("rbx",), 0),
            "schedule_idle": Frame(("rbx",), 0),
            "kthread": Frame(("r15", "r14", "r13", "r12", "rbp", "rbx"), 0),
            "xen_safe_halt": Frame(),
            "default_idle": Frame(),
            "sysrq_handle_crash": Frame(),
            **extra.frames,
        },
        handwritten={
            "__switch_to_asm": _switch_to_asm(sp_offset),
            "entry_SYSCALL_64": _entry_syscall_64,
            "asm_exc_page_fault": _asm_exc_page_fault,
            "ret_from_fork": _ret_from_fork,
            "asm_cpu_bringup_and_idle": _bringup("cpu_bringup_and_idle"),
            "startup_xen": _bringup("xen_start_kernel"),
            hypercall.function: hypercall.emit,
            **extra.handwritten,
        },
        labels=(".hypercall",),
        indirect={
            "do_syscall_64": "ffd0",
            "kthread": "ffd3",
            "proc_reg_write": "ffd0",
            "vfs_write": "41ffd2",
            "vfs_read": "ffd0",
            "notifier_call_chain": "ffd2",
            "__handle_sysrq": "ff5010",
        },
    )
    return Spec(
        release=RELEASE,
        kallsyms="6.1",
        version=VERSION,
        banner=BANNER,
        types=types,
        layout=elf.ELF64,
        machine=elf.EM_X86_64,
        recipe=recipe,
        rodata=RODATA,
        data=DATA,
        percpu=0,
        bss=BSS,
        map_base=KERNEL_MAP,
        page_offset=PAGE_OFFSET,
        aliases={
            "jiffies": "jiffies_64",
            "init_thread_union": "init_stack",
        },
        has_btf=True,
        build_id=True,
    )
