"""Linux 2.6.16 and 2.6.18 on i386 under Xen: functions, call chains, entry code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...code.asm import Asm
from ...code.text import Frame, Handwritten, Recipe, epilogue, names, prologue
from ...debuginfo.cparse import parse
from ...debuginfo.ctype import I386
from ...elf import format as elf
from ..image import Spec
from .declarations import TYPES, VARIABLES, select

PAGE_OFFSET = 0xC0000000

_SYSCALL = ("system_call",)
_KTHREAD = ("kthread", "kernel_thread_helper")
_READ = ("vfs_read", "sys_read", "system_call")


def _sleep(chain: str, *outer: str) -> tuple[str, ...]:
    return ("schedule", *names(chain), *outer)


#: Call chains of sleeping tasks, innermost first.
SLEEPS: dict[str, tuple[str, ...]] = {
    "wait": _sleep("do_wait sys_wait4", *_SYSCALL),
    "poll": _sleep("schedule_timeout do_sys_poll sys_poll", *_SYSCALL),
    "select": _sleep("schedule_timeout do_select core_sys_select sys_select", *_SYSCALL),
    "futex": _sleep("schedule_timeout futex_wait do_futex sys_futex", *_SYSCALL),
    "nanosleep": _sleep("schedule_hrtimer hrtimer_nanosleep sys_nanosleep", *_SYSCALL),
    "tty": _sleep("schedule_timeout read_chan tty_read", *_READ),
    "pipe": _sleep("pipe_wait pipe_readv pipe_read", *_READ),
    "syslog": _sleep("do_syslog kmsg_read", *_READ),
    "accept": _sleep(
        "schedule_timeout inet_csk_accept inet_accept sys_accept sys_socketcall", *_SYSCALL
    ),
    "recv": _sleep(
        "schedule_timeout unix_stream_data_wait unix_stream_recvmsg do_sock_read sock_aio_read "
        "do_sync_read",
        *_READ,
    ),
    "pause": _sleep("sys_pause", *_SYSCALL),
    "zombie": _sleep("do_exit do_group_exit sys_exit_group", *_SYSCALL),
    "signal": _sleep("sys_rt_sigsuspend", *_SYSCALL),
    "stopped": _sleep(
        "finish_stop get_signal_to_deliver do_signal do_notify_resume work_notifysig"
    ),
    "fault": _sleep(
        "io_schedule sync_page __wait_on_bit_lock __lock_page filemap_nopage __handle_mm_fault "
        "do_page_fault error_code"
    ),
    "migration": _sleep("migration_thread", *_KTHREAD),
    "ksoftirqd": _sleep("ksoftirqd", *_KTHREAD),
    "watchdog": _sleep("msleep_interruptible watchdog", *_KTHREAD),
    "worker": _sleep("worker_thread", *_KTHREAD),
    "pdflush": _sleep("__pdflush pdflush", *_KTHREAD),
    "kswapd": _sleep("kswapd kernel_thread_helper"),
    "kjournald": _sleep("kjournald kernel_thread_helper"),
    "scsi_eh": _sleep("scsi_error_handler", *_KTHREAD),
    "khubd": _sleep("hub_thread", *_KTHREAD),
    "kseriod": _sleep("serio_thread", *_KTHREAD),
    "xenwatch": _sleep("xenwatch_thread", *_KTHREAD),
    "xenbus": _sleep("xb_read process_msg xenbus_thread", *_KTHREAD),
    "idle0": _sleep("cpu_idle start_kernel startup_32"),
    "idle": _sleep("cpu_idle cpu_bringup_and_idle"),
}

#: Call chains of tasks that sleep in the module dm_mirror: a thread, and a system call.
IN_MODULE: dict[str, tuple[str, ...]] = {
    "kmirrord": _sleep("schedule_timeout mirror_wait mirror_thread", *_KTHREAD),
    "smartd": _sleep("schedule_timeout mirror_status_wait mirror_status_read", *_READ),
}

#: Call chains of running vCPUs at the crash. A name with a dot is in the hypercall page.
RUNNING: dict[str, tuple[str, ...]] = {
    "panic": names(
        ".kexec_op crash_kexec __handle_sysrq write_sysrq_trigger vfs_write sys_write system_call"
    ),
    "idle0": names(".sched_op safe_halt xen_idle cpu_idle start_kernel startup_32"),
    "idle": names(".sched_op safe_halt xen_idle cpu_idle cpu_bringup_and_idle"),
}

#: Call chains of an oops in a module's timer, which interrupted the idle task: of the fault, the
#: softirq and the idle task.
OOPS = names(".kexec_op crash_kexec die do_page_fault error_code")
TIMER = names(
    "mirror_timeout run_timer_softirq __do_softirq do_softirq irq_exit do_IRQ evtchn_do_upcall "
    "hypervisor_callback"
)
IDLE = names("xen_idle cpu_idle start_kernel startup_32")

#: Numbers of the hypercalls that a vCPU may be in.
HYPERCALLS = {".sched_op": 29, ".kexec_op": 37}
#: Offset of the return address in a hypercall stub: ``mov $nr, %eax; int $0x82``.
HYPERCALL_RETURN = 7

_SAVE_ALL = "fc 06 1e 50 55 57 56 52 51 53 ba7b000000 8eda 8ec2"
_GET_THREAD_INFO = "bd00e0ffff 21e5"


@dataclass(frozen=True)
class Layout:
    """The addresses of one build of the kernel."""

    text: int
    rodata: int
    data: int
    percpu: int
    bss: int
    addresses: Mapping[str, int]
    functions: Mapping[str, int]
    returns: Mapping[tuple[str, str], int]
    frames: Mapping[str, Frame]
    #: Functions in ``.init.text``.
    init_text: Mapping[str, int] = field(default_factory=dict)
    #: CONFIG_FRAME_POINTER.
    frame_pointer: bool = False
    #: Whether the stack of the boot CPU's idle task ends at cpu_idle.
    ends_at_cpu_idle: bool = False


def _schedule(frame: Frame, flags: bool, at: int | None, offsets: tuple[int, int]) -> Handwritten:
    """schedule() with switch_to() in it, whose pushes have no unwind information.

    Since 2.6.18 it saves the flags, too.
    """
    esp, eip = offsets

    def emit(asm: Asm) -> None:
        prologue(asm, frame)
        asm.emit("89c2 31c0 85d2")
        tail = (1 if flags else 0) + 1 + 6 + 6 + 10 + 6 + 5
        if at is not None:
            asm.nops(at - tail - asm.here)
        if flags:
            asm.emit("9c")
        asm.emit("55")
        asm.emit(b"\x89\xa0" + esp.to_bytes(4, "little"))  # mov %esp, thread.esp(%eax)
        asm.emit(b"\x8b\xa2" + esp.to_bytes(4, "little"))  # mov thread.esp(%edx), %esp
        resume = asm.here + 10 + 6 + 5
        asm.emit(b"\xc7\x80" + eip.to_bytes(4, "little") + resume.to_bytes(4, "little"))
        asm.emit(b"\xff\xb2" + eip.to_bytes(4, "little"))  # push thread.eip(%edx)
        asm.jump("__switch_to")
        asm.label(".resume")
        asm.emit("5d 9d" if flags else "5d")
        epilogue(asm, frame)

    return emit


def _system_call(sys_call_table: int, at: int | None) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.emit("50")
        asm.emit(_SAVE_ALL)
        asm.emit(_GET_THREAD_INFO)
        asm.emit("66f74508c101 0f8580000000 3d3e010000 0f8390000000")
        if at is not None:
            asm.nops(at - 7 - asm.here)
        else:
            # The kernel of the 2006 message only has the symbol system_call.
            asm.label("syscall_call")
        code = b"\xff\x14\x85" + sys_call_table.to_bytes(4, "little")
        asm.call_indirect(code, "*")  # call *sys_call_table(,%eax,4)
        asm.emit("89442418")
        if at is None:
            asm.label("syscall_exit")
        asm.emit("8b4d08 66f7c1fffe 5b 59 5a 5e 5f 5d 58 1f 07 83c404 cf")

    return emit


def _error_code(asm: Asm) -> None:
    asm.emit("1e 50 31c0 55 57 56 52 48 51 53 fc 06 59 8b7c2420 8b542424 89442424 894c2420")
    asm.emit("b97b000000 8ed9 8ec1 89e0")
    asm.call_indirect("ffd7", "*")  # call *%edi
    asm.emit("e900000000")


def _page_fault(asm: Asm) -> None:
    asm.emit("6800000000")
    asm.jump("error_code")


def _hypervisor_callback(asm: Asm) -> None:
    """Passes the address of the registers on the stack."""
    asm.emit("50 " + _SAVE_ALL + " 89e0 50")
    asm.call("evtchn_do_upcall")
    asm.emit("83c404 e900000000")


def _kernel_thread_helper(asm: Asm) -> None:
    asm.emit("89d0 52")
    asm.call_indirect("ffd3", "*")  # call *%ebx
    asm.emit("50")
    asm.call("do_exit")


def _startup_32(asm: Asm) -> None:
    asm.emit("8935000000c0 fc 31c0 8ee0 8ee8 fc")
    asm.call("start_kernel")
    asm.emit("ebfe")


def _notify(asm: Asm) -> None:
    asm.emit("89e0 31d2")
    asm.call("do_notify_resume")
    asm.emit("ebf5")


def _ret_from_fork(asm: Asm) -> None:
    asm.emit("50")
    asm.call("schedule_tail")
    asm.emit(_GET_THREAD_INFO + "58 eb00")


def _tail_jump(target: str) -> Handwritten:
    def emit(asm: Asm) -> None:
        asm.emit("89c2 31c0")
        asm.jump(target)

    return emit


def hypercall_page(asm: Asm) -> None:
    """The hypercall page, as Xen fills it for a kernel in ring 1."""
    numbers = {number: name for name, number in HYPERCALLS.items()}
    for number in range(128):
        if number in numbers:
            asm.label(numbers[number])
        asm.emit((b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x82\xc3").ljust(32, b"\0"))


def spec(release: str, version: str, banner: str, minor: str, pae: bool, layout: Layout) -> Spec:
    """The definition of the image; ``minor`` is "16" or "18"."""
    keep = {"i386", minor, "pae" if pae else "nopae"}
    types = parse(select(TYPES + VARIABLES, keep), I386)
    esp, eip = types.offset("task_struct.thread.esp"), types.offset("task_struct.thread.eip")
    schedule = Frame(("ebp", "edi", "esi", "ebx"), 104)
    frames = {"schedule": schedule, **layout.frames}
    if layout.frame_pointer:
        frames = {name: replace(frame, pointer=True) for name, frame in frames.items()}
    frame = frames["schedule"]
    sys_call_table = layout.addresses["sys_call_table"]
    sleeps = dict(SLEEPS)
    if layout.ends_at_cpu_idle:
        sleeps["idle0"] = _sleep("cpu_idle")
    recipe = Recipe(
        word=4,
        base=layout.text,
        chains=[
            *sleeps.values(),
            *RUNNING.values(),
            ("do_exit", "kernel_thread_helper"),
            OOPS,
            TIMER[1:],
        ],
        frames=frames,
        handwritten={
            "startup_32": _startup_32,
            "hypercall_page": hypercall_page,
            "ret_from_fork": _ret_from_fork,
            "system_call": _system_call(sys_call_table, layout.returns.get(("system_call", "*"))),
            "work_notifysig": _notify,
            "page_fault": _page_fault,
            "error_code": _error_code,
            "hypervisor_callback": _hypervisor_callback,
            "kernel_thread_helper": _kernel_thread_helper,
            "schedule": _schedule(
                frame, minor == "18", layout.returns.get(("schedule", ".resume")), (esp, eip)
            ),
            "sysrq_handle_crashdump": _tail_jump("crash_kexec"),
            "__switch_to": _tail_jump("finish_task_switch"),
            "finish_task_switch": lambda asm: asm.emit("c3"),
            "schedule_tail": _tail_jump("finish_task_switch"),
        },
        labels=tuple(HYPERCALLS),
        indirect={
            "kthread": "ff5310",
            "__handle_sysrq": "ff5204",
            "run_timer_softirq": "ffd2",
            "vfs_write": "ff5710",
            "vfs_read": "ff560c",
            "sync_page": "ffd0",
            "__wait_on_bit_lock": "ffd7",
            "__handle_mm_fault": "ff5108",
            "cpu_bringup_and_idle": "ffd0",
        },
        addresses={**layout.functions, **layout.init_text},
        returns=layout.returns,
        pushes=("ebp", "edi", "esi", "ebx"),
        frame_pointer=layout.frame_pointer,
    )
    return Spec(
        release=release,
        kallsyms="2.6.10",
        version=version,
        banner=banner,
        types=types,
        layout=elf.ELF32,
        machine=elf.EM_386,
        recipe=recipe,
        rodata=layout.rodata,
        data=layout.data,
        percpu=layout.percpu,
        bss=layout.bss,
        map_base=PAGE_OFFSET,
        page_offset=PAGE_OFFSET,
        aliases={"jiffies": "jiffies_64"},
        addresses=layout.addresses,
        dwarf=2,
        debug_frame=True,
        init_text=layout.init_text,
    )
