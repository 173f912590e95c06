"""Linux 4.19 on i386: functions with frame pointers, call chains, entry code."""

from __future__ import annotations

from ...code.asm import Asm
from ...code.text import Frame, Handwritten, Recipe, epilogue, names, prologue
from ...debuginfo.cparse import parse
from ...debuginfo.ctype import I386
from ...elf import format as elf
from ..image import Spec
from .declarations import TYPES, VARIABLES

RELEASE = "4.19.0-27-686-pae"
VERSION = "#1 SMP Debian 4.19.316-1 (2024-06-25)"
BANNER = f"Linux version {RELEASE} (builder@example) (gcc version 8.3.0) {VERSION}\n"

PAGE_OFFSET = 0xC0000000
TEXT = 0xC1000000

_SYSCALL = names("do_fast_syscall_32 entry_SYSENTER_32")
_KTHREAD = names("kthread ret_from_fork")
_SLEEP = names("__switch_to_asm __schedule schedule")
_READ = ("__vfs_read", "vfs_read", "ksys_read", "sys_read", *_SYSCALL)


def _sleep(chain: str, *outer: str) -> tuple[str, ...]:
    return (*_SLEEP, *names(chain), *outer)


#: The call chain of the journal's thread, with two functions of the module jbd2.
IN_MODULE = (*_SLEEP, "jbd2_journal_wait", "jbd2_journal_thread", *_KTHREAD)

#: Call chains of sleeping tasks, innermost first.
SLEEPS: dict[str, tuple[str, ...]] = {
    "wait": _sleep("do_wait kernel_wait4 sys_wait4", *_SYSCALL),
    "poll": _sleep(
        "schedule_hrtimeout_range_clock schedule_hrtimeout_range poll_schedule_timeout do_sys_poll "
        "sys_poll",
        *_SYSCALL,
    ),
    "select": _sleep(
        "schedule_hrtimeout_range_clock schedule_hrtimeout_range poll_schedule_timeout do_select "
        "core_sys_select sys_select",
        *_SYSCALL,
    ),
    "epoll": _sleep(
        "schedule_hrtimeout_range_clock ep_poll do_epoll_wait sys_epoll_wait", *_SYSCALL
    ),
    "futex": _sleep("futex_wait_queue_me futex_wait do_futex sys_futex", *_SYSCALL),
    "nanosleep": _sleep("do_nanosleep hrtimer_nanosleep sys_nanosleep", *_SYSCALL),
    "tty": _sleep("schedule_timeout wait_woken n_tty_read tty_read", *_READ),
    "pipe": _sleep("pipe_wait pipe_read", *_READ),
    "syslog": _sleep("do_syslog kmsg_read proc_reg_read", *_READ),
    "accept": _sleep(
        "schedule_timeout inet_csk_accept inet_accept __sys_accept4 sys_socketcall", *_SYSCALL
    ),
    "pause": _sleep("sys_pause", *_SYSCALL),
    "signal": _sleep("do_sigtimedwait sys_rt_sigtimedwait", *_SYSCALL),
    "stopped": _sleep(
        "do_signal_stop get_signal do_signal exit_to_usermode_loop syscall_slow_exit_work",
        *_SYSCALL,
    ),
    "fault": _sleep(
        "io_schedule __lock_page __lock_page_or_retry filemap_fault __do_fault __handle_mm_fault "
        "handle_mm_fault __do_page_fault do_page_fault common_exception"
    ),
    "journal": _sleep("kjournald2", *_KTHREAD),
    "kthreadd": _sleep("kthreadd ret_from_fork"),
    "worker": _sleep("worker_thread", *_KTHREAD),
    "rescuer": _sleep("rescuer_thread", *_KTHREAD),
    "smpboot": _sleep("smpboot_thread_fn", *_KTHREAD),
    "rcu": _sleep("schedule_timeout rcu_gp_kthread", *_KTHREAD),
    "rcu_tasks": _sleep("rcu_tasks_kthread", *_KTHREAD),
    "kswapd": _sleep("kswapd", *_KTHREAD),
    "kcompactd": _sleep("kcompactd", *_KTHREAD),
    "khugepaged": _sleep("schedule_timeout khugepaged", *_KTHREAD),
    "ksmd": _sleep("ksm_scan_thread", *_KTHREAD),
    "oom_reaper": _sleep("oom_reaper", *_KTHREAD),
    "kauditd": _sleep("kauditd_thread", *_KTHREAD),
    "kdevtmpfs": _sleep("devtmpfsd", *_KTHREAD),
    "khungtaskd": _sleep("schedule_timeout watchdog", *_KTHREAD),
    "xenwatch": _sleep("xenwatch_thread", *_KTHREAD),
    "xenbus": _sleep("xb_read process_msg xenbus_thread", *_KTHREAD),
    "idle0": (
        *_SLEEP[:2],
        *names("schedule_idle do_idle cpu_startup_entry rest_init arch_call_rest_init"),
        *names("start_kernel i386_start_kernel xen_start_kernel startup_xen"),
    ),
    "idle": (
        *_SLEEP[:2],
        *names("schedule_idle do_idle cpu_startup_entry cpu_bringup_and_idle"),
    ),
}

_HALT = names("xen_hypercall_sched_op xen_safe_halt default_idle default_idle_call")

#: Call chains of running vCPUs at the time of the crash.
RUNNING: dict[str, tuple[str, ...]] = {
    "idle0": (*_HALT, *SLEEPS["idle0"][3:]),
    "idle": (*_HALT, *SLEEPS["idle"][3:]),
    #: Until 5.0, sysrq-c wrote to address 0: the panic comes from a page fault.
    "panic": names(
        "xen_hypercall_sched_op xen_reboot xen_panic_event notifier_call_chain "
        "atomic_notifier_call_chain panic oops_end no_context __bad_area_nosemaphore "
        "bad_area_nosemaphore __do_page_fault do_page_fault common_exception"
    ),
    "fault": (
        *names("sysrq_handle_crash __handle_sysrq write_sysrq_trigger proc_reg_write __vfs_write"),
        *names("vfs_write ksys_write sys_write"),
        *_SYSCALL,
    ),
}

SCHED_OP = 29
#: Offset of the return address in a hypercall stub: ``mov $nr, %eax; int $0x82``.
HYPERCALL_RETURN = 7

_SAVE_ALL = "fc 6a00 0fa0 06 1e 50 55 57 56 52 51 53 ba7b000000 8eda 8ec2"


def _switch_to_asm(sp_offset: int) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.emit("55 53 57 56 9c")  # push %ebp, %ebx, %edi, %esi; pushf
        asm.emit(b"\x89\xa0" + sp_offset.to_bytes(4, "little"))
        asm.emit(b"\x8b\xa2" + sp_offset.to_bytes(4, "little"))
        asm.emit("9d 5e 5f 5b 5d")
        asm.jump("__switch_to")

    return emit


def _entry_sysenter_32(asm: Asm) -> None:
    asm.emit("6a7b 55 9c 6a73 6a00 50")
    asm.emit(_SAVE_ALL)
    asm.emit("89e0")
    asm.call("do_fast_syscall_32")
    asm.emit("85c0 0f8400000000")


def _common_exception(asm: Asm) -> None:
    asm.emit("1e 0fa0 06 50 55 57 56 52 51 53 fc 8b7c242c 89e0")
    asm.call_indirect("ffd7", "*")  # call *%edi
    asm.emit("e900000000")


def _page_fault(asm: Asm) -> None:
    asm.emit("6800000000")
    asm.jump("common_exception")


def _ret_from_fork(asm: Asm) -> None:
    asm.call("schedule_tail")
    asm.emit("85db 7507 89e0")
    asm.call("syscall_return_slowpath")
    asm.emit("89f8")
    asm.call_indirect("ffd3", "*")  # call *%ebx
    asm.emit("c744241800000000 ebea")


def _startup_xen(asm: Asm) -> None:
    asm.emit("fc 31c0 8ee8")
    asm.call("xen_start_kernel")
    asm.emit("0f0b")


def _hypercall_page(asm: Asm) -> None:
    """The hypercall page, as Xen fills it for a kernel in ring 1."""
    for number in range(128):
        if number == SCHED_OP:
            asm.label("xen_hypercall_sched_op", 32)
        asm.emit((b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x82\xc3").ljust(32, b"\0"))


#: Functions in ``.init.text``.
INIT_TEXT = {
    "start_kernel": 0xC100C000,
    "i386_start_kernel": 0xC100C200,
    "xen_start_kernel": 0xC100C400,
    "startup_xen": 0xC100C600,
    "arch_call_rest_init": 0xC100C800,
}

_CRASH = Frame(("ebp",), 0, True)


def _sysrq_handle_crash(asm: Asm) -> None:
    """``movb $1, 0``; the faulting instruction is at the label."""
    prologue(asm, _CRASH)
    asm.emit("c7050000000001000000 0faef8")
    asm.label(".fault")
    asm.emit("c6050000000001")
    epilogue(asm, _CRASH)


def spec() -> Spec:
    """The definition of the image."""
    types = parse(TYPES + VARIABLES, I386)
    pointer = Frame(("ebp",), 0, True)
    recipe = Recipe(
        word=4,
        base=TEXT,
        chains=[
            *SLEEPS.values(),
            *RUNNING.values(),
            ("__switch_to", "finish_task_switch"),
            ("schedule_tail", "finish_task_switch"),
        ],
        frames={
            "schedule": pointer,
            "sysrq_handle_crash": _CRASH,
            "__schedule": Frame(("ebp", "edi", "esi", "ebx"), 44, True),
            "xen_safe_halt": pointer,
            "default_idle": pointer,
        },
        handwritten={
            "startup_xen": _startup_xen,
            "hypercall_page": _hypercall_page,
            "__switch_to_asm": _switch_to_asm(types.offset("task_struct.thread.sp")),
            "entry_SYSENTER_32": _entry_sysenter_32,
            "page_fault": _page_fault,
            "common_exception": _common_exception,
            "ret_from_fork": _ret_from_fork,
            "sysrq_handle_crash": _sysrq_handle_crash,
            "syscall_return_slowpath": lambda asm: asm.emit("c3"),
        },
        labels=("xen_hypercall_sched_op",),
        indirect={
            "do_fast_syscall_32": "ffd1",
            "kthread": "ffd0",
            "proc_reg_write": "ffd1",
            "__vfs_write": "ffd6",
            "__vfs_read": "ffd6",
            "notifier_call_chain": "ffd0",
            "__handle_sysrq": "ff5204",
        },
        addresses=INIT_TEXT,
        pushes=("ebp", "edi", "esi", "ebx"),
        frame_pointer=True,
    )
    return Spec(
        release=RELEASE,
        kallsyms="4.6",
        version=VERSION,
        banner=BANNER,
        types=types,
        layout=elf.ELF32,
        machine=elf.EM_386,
        recipe=recipe,
        rodata=0xC1010000,
        data=0xC1040000,
        percpu=0xC1060000,
        bss=0xC1064000,
        map_base=PAGE_OFFSET,
        page_offset=PAGE_OFFSET,
        aliases={"jiffies": "jiffies_64", "init_stack": "init_thread_union"},
        dwarf=4,
        debug_frame=True,
        build_id=True,
        init_text=INIT_TEXT,
    )
