"""How a 6.1 kernel dies: the functions on its stack, and what it prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...code.asm import Asm, Row
from ...code.stack import StackFrame
from ...code.text import Handwritten, names
from .functions import PUSH_REGS, SLEEPS, Extra

_SYSCALL = SLEEPS["wait"][-2:]
_KTHREAD = SLEEPS["worker"][-2:]
_DIES = names(
    ".hypercall xen_reboot xen_panic_event notifier_call_chain atomic_notifier_call_chain panic"
)
_OOPS = (*_DIES, "oops_end")
_PAGE_FAULT = (*_OOPS, *names("page_fault_oops exc_page_fault asm_exc_page_fault"))
_INVALID_OP = names("report_bug handle_bug exc_invalid_op asm_exc_invalid_op")
_TIMER = names(
    "__hrtimer_run_queues hrtimer_interrupt xen_timer_interrupt __handle_irq_event_percpu "
    "handle_percpu_irq xen_evtchn_do_upcall exc_xen_hypervisor_callback "
    "asm_exc_xen_hypervisor_callback"
)
#: What compilers append to the names of functions, by build.
_SUFFIXES = ("", ".isra.0", ".constprop.0", ".part.0", ".llvm.1234567890123456789")


@dataclass(frozen=True)
class Crash:
    """A crash of a kernel or of Xen."""

    #: Functions in which it happens, innermost first; empty if the kernel goes on.
    where: tuple[str, ...] = ()
    #: What the kernel calls then. Ends with the entry of an exception if there is one.
    reaction: tuple[str, ...] = ()
    #: Lines before the stack in the log, and after it.
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    #: The name of the task that runs it; None for the one that panics in other dumps.
    comm: str | None = None
    #: A blocked task whose stack the log has, and the call chain on which it sleeps.
    blocked: str | None = None
    blocked_on: tuple[str, ...] = ()
    #: The id of the domain whose kernel it is.
    domain: int = 0
    #: The last lines of Xen's console.
    console: tuple[str, ...] = ("Hardware Dom0 crashed: Executing kexec image on cpu0",)

    @property
    def is_exception(self) -> bool:
        """Whether the functions in ``where`` are interrupted."""
        return self.reaction[-1:] != () and self.reaction[-1].startswith("asm_")

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """The call chains that the kernel's text needs."""
        if not self.where:
            return ()
        if self.is_exception:
            return (self.reaction, self.where)
        return ((*self.reaction, *self.where),)

    def of_build(self, build: int) -> Crash:
        """The same crash in another build of the kernel: the compiler makes other copies."""
        suffix = _SUFFIXES[build % len(_SUFFIXES)]
        if not suffix or len(self.where) < 4:
            return self
        first, second, *others = self.where
        return replace(self, where=(first, f"{second}{suffix}", *others))

    def extra(self) -> Extra:
        """What the kernel's image has besides."""
        blocked = {"blocked": self.blocked_on} if self.blocked_on else {}
        entry = self.reaction[-1] if self.is_exception else None
        entries = {name: emit for name, emit in HANDWRITTEN.items() if name == entry}
        return Extra(blocked, {}, "", "", self.chains, entries)


def _entry(target: str) -> Handwritten:
    """The entry of an exception with an error code, which calls ``target``."""

    def emit(asm: Asm) -> None:
        asm.state(Row(offset=8, kind="iret"))
        asm.emit("fc")  # cld
        asm.emit(PUSH_REGS)
        asm.state(Row(kind="regs"))
        asm.emit("4889e7")  # mov %rsp, %rdi
        asm.call(target)
        asm.emit("48cf")  # iretq

    return emit


#: Entries of exceptions that only crashes need.
HANDWRITTEN: Mapping[str, Handwritten] = {
    f"asm_{handler}": _entry(handler)
    for handler in (
        "exc_invalid_op",
        "exc_general_protection",
        "exc_divide_error",
        "exc_double_fault",
        "exc_xen_hypervisor_callback",
    )
}

_FATAL = "Kernel panic - not syncing: Fatal exception"
_CPU = "CPU: 1 PID: 1340 Comm: do_kdump Not tainted 6.1.0-56-amd64 #1"
_WRITE = (*names("vfs_write ksys_write __x64_sys_write"), *_SYSCALL)
_READ = (*names("vfs_read ksys_read __x64_sys_read"), *_SYSCALL)

#: Crashes by name; what each is called is what a reader should find.
CRASHES: dict[str, Crash] = {
    "sysrq": Crash(
        (*names("sysrq_handle_crash __handle_sysrq write_sysrq_trigger proc_reg_write"), *_WRITE),
        _DIES,
        ("sysrq: Trigger a crash", "Kernel panic - not syncing: sysrq triggered crash", _CPU),
    ),
    "null-dereference": Crash(
        (*names("ext4_mb_load_buddy ext4_mb_new_blocks ext4_file_write_iter"), *_WRITE),
        _PAGE_FAULT,
        (
            "BUG: kernel NULL pointer dereference, address: 0000000000000018",
            "#PF: supervisor read access in kernel mode",
            "Oops: 0000 [#1] PREEMPT SMP NOPTI",
            _CPU,
        ),
        ("---[ end trace 0000000000000000 ]---", _FATAL),
    ),
    "page-fault": Crash(
        (*names("tcp_sendmsg_locked tcp_sendmsg sock_write_iter"), *_WRITE),
        _PAGE_FAULT,
        (
            "BUG: unable to handle page fault for address: ffffc90001234000",
            "Oops: 0002 [#1] PREEMPT SMP NOPTI",
            _CPU,
        ),
        ("---[ end trace 0000000000000000 ]---", _FATAL),
    ),
    "general-protection": Crash(
        (*names("kmem_cache_alloc alloc_inode new_inode proc_pid_make_inode"), *_READ),
        (*_OOPS, "die_addr", "exc_general_protection", "asm_exc_general_protection"),
        (
            "general protection fault, probably for non-canonical address 0xdead000000000122: "
            "0000 [#1] PREEMPT SMP NOPTI",
            _CPU,
        ),
        ("---[ end trace 0000000000000000 ]---", _FATAL),
    ),
    "divide-error": Crash(
        (*names("calc_lcoefs ioc_refresh_params ioc_cost_model_write cgroup_file_write"), *_WRITE),
        (*_OOPS, "die", "exc_divide_error", "asm_exc_divide_error"),
        ("divide error: 0000 [#1] PREEMPT SMP NOPTI", _CPU),
        ("---[ end trace 0000000000000000 ]---", _FATAL),
    ),
    "bug": Crash(
        (*names("xenvif_rx_action xenvif_kthread_guest_rx"), *_KTHREAD),
        (*_OOPS, "die", *_INVALID_OP[2:]),
        (
            "------------[ cut here ]------------",
            "kernel BUG at drivers/net/xen-netback/rx.c:421!",
            "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
        ),
        ("---[ end trace 0000000000000000 ]---", _FATAL),
        comm="xenwatch",
    ),
    "warning": Crash(
        (*names("refcount_warn_saturate sock_wfree skb_release_head_state"), *_WRITE),
        (*_DIES, "check_panic_on_warn", "__warn", *_INVALID_OP),
        (
            "------------[ cut here ]------------",
            "refcount_t: underflow; use-after-free.",
            "WARNING: CPU: 1 PID: 1340 at lib/refcount.c:28 refcount_warn_saturate+0xe/0x20",
            _CPU,
        ),
        ("Kernel panic - not syncing: kernel: panic_on_warn set ...",),
    ),
    "soft-lockup": Crash(
        (*names("shrink_dentry_list prune_dcache_sb drop_slab drop_caches_handler"), *_WRITE),
        (*_DIES, "watchdog_timer_fn", *_TIMER),
        ("watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [do_kdump:1340]", _CPU),
        ("Kernel panic - not syncing: softlockup: hung tasks",),
    ),
    "hung-task": Crash(
        ("watchdog", *_KTHREAD),
        _DIES,
        (
            "INFO: task dd:1301 blocked for more than 120 seconds.",
            "      Not tainted 6.1.0-56-amd64 #1",
            "task:dd              state:D stack:0     pid:1301  ppid:1      flags:0x00004002",
        ),
        ("Kernel panic - not syncing: hung_task: blocked tasks",),
        comm="khungtaskd",
        blocked="dd",
        blocked_on=(
            *SLEEPS["worker"][:3],
            *names("io_schedule bit_wait_io xfs_buf_iowait xfs_log_force xfs_file_fsync do_fsync"),
            "__x64_sys_fsync",
            *_SYSCALL,
        ),
    ),
    "out-of-memory": Crash(
        (*names("out_of_memory __alloc_pages_slowpath.constprop.0 __alloc_pages"), *_READ),
        _DIES,
        (
            "do_kdump invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0",
            "Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled",
            _CPU,
        ),
    ),
    "panic": Crash(
        (*names("ext4_handle_error __ext4_error ext4_lookup __lookup_slow"), *_READ),
        _DIES,
        ("Kernel panic - not syncing: EXT4-fs (device xvda1): panic forced after error", _CPU),
    ),
    "xen-page-fault": Crash(
        console=(
            "----[ Xen-4.17.5  x86_64  debug=n  Not tainted ]----",
            "CPU:    0",
            "Xen call trace:",
            "   [<ffff82d04022cdc8>] R common/page_alloc.c#free_heap_pages+0x52/0x753",
            "   [<ffff82d04022e98f>] F free_domheap_pages+0x445/0x447",
            "   [<ffff82d040320f88>] F put_page+0x2f/0x31",
            "   [<ffff82d04020cdc8>] F do_mmu_update+0x952/0x1753",
            "   [<ffff82d0402012cd>] F lstar_enter+0x13d/0x150",
            "",
            "****************************************",
            "Panic on CPU 0:",
            "FATAL PAGE FAULT",
            "[error_code=0000]",
            "Faulting linear address: ffff82c000205001",
            "****************************************",
        )
    ),
    "domu-panic": Crash(
        (*names("prepare_namespace kernel_init_freeable kernel_init ret_from_fork")[:1], *_READ),
        _DIES,
        ("Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(202,1)",),
        comm="bash",
        domain=1,
        console=("'q' pressed -> dumping domain info",),
    ),
}


def trace(crash: Crash, frames: Sequence[StackFrame], describe: Describe) -> Iterator[str]:
    """The stack as the kernel prints it: the registers of an exception, then its callers."""
    interrupted = next((i for i, frame in enumerate(frames[1:], 1) if frame.interrupted), None)
    listed = frames[1:] if interrupted is None else frames[interrupted + 1 :]
    if interrupted is not None:
        yield f"RIP: 0010:{describe(frames[interrupted])}"
        yield "RSP: 0018:ffffc900402c3c90 EFLAGS: 00010246"
    yield "Call Trace:"
    yield " <TASK>"
    for frame in listed:
        yield f" {describe(frame)}"
    yield " </TASK>"


class Describe:
    """``name+0x1/0x2`` of a frame."""

    def __init__(self, functions: Mapping[str, tuple[int, int]]) -> None:
        #: Address and size by name.
        self._functions = functions

    def __call__(self, frame: StackFrame) -> str:
        """The text of a frame."""
        address, size = self._functions.get(frame.symbol, (frame.pc, 16))
        return f"{frame.symbol}+{frame.pc - address:#x}/{size:#x}"
