"""Whether a kernel or Xen has crashed, and where its code failed."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..limits import MAX_REPORT_FRAMES
from ..linux import states
from . import code, oops
from .frames import frames, registers, short, task
from .model import Crash, Oops

if TYPE_CHECKING:
    from .._native import Frame, Symbols, WordSize
    from ..linux.backtrace import Trace
    from ..linux.header import Header
    from ..linux.system import Linux
    from ..xen.host import XenHost
    from ..xen.stacks import PcpuTrace

#: Kinds of crashes by the message of the panic or by other lines of the log; the first that fits.
_KINDS = (
    ("sysrq", r"(?i)sysrq ?: ?(Trigger a )?[Cc]rash|sysrq triggered crash|SysRq : Netdump"),
    ("hung task", r"hung_task: blocked tasks"),
    (
        "watchdog",
        r"(?i)hard lockup|softlockup|soft lockup|rcu.* (detected )?stalls?\b|rcu stall|"
        r"workqueue lockup|watchdog",
    ),
    ("machine check", r"(?i)machine check|\[Hardware Error\]"),
    ("nmi", r"NMI: Not continuing|NMI:? (IOCK|SERR|unknown)|An NMI occurred|Uhhuh\. NMI"),
    ("out of memory", r"(?i)out of memory|System is deadlocked on memory"),
    ("init", r"Attempted to kill init"),
    (
        "oops",
        r"Fatal exception|BUG: |Oops|general protection|[Kk]ernel BUG at|divide error|"
        r"Unable to handle kernel|double fault|stack segment|invalid opcode|panic_on_oops",
    ),
    ("panic", r""),
)
#: Lines of the log that say why a kernel has crashed.
_LINES = (
    r"(?i)kernel panic|\bBUG: |\bOops\b|general protection|kernel bug at|unable to handle kernel|"
    r"sysrq ?: |hung_task|blocked for more than|lockup|NMI:|NMI received|machine check|"
    r"hardware error|out of memory|attempted to kill init|divide error|double fault|"
    r"detected stall|#PF: "
)
_MAX_LINES = 12
#: Functions of a panic; the function that called the outermost of them is where it began.
_PANIC = (
    r"(n?mi_)?v?panic|crash_kexec|__crash_kexec|machine_kexec|xen_(panic_event|reboot|"
    r"machine_kexec)|machine_crash_shutdown|HYPERVISOR_\w+|xen_hypercall_\w+|__xen_hypercall\w*|"
    r"(atomic_)?notifier_call_chain|oops_end|dump_stack\w*|emergency_restart|machine_restart"
)
#: Functions that handle an exception: an interrupted frame outside of them is where it failed.
_EXCEPTION = (
    r"(asm_)?(xen)?_?(asm_)?exc_\w+|(do_)?(async_)?page_fault|__?die\w*|oops_\w+|do_trap\w*|"
    r"(do_)?(invalid_op|general_protection|double_fault|divide_error|int3)|do_error_trap|"
    r"error_(code|entry|exit)|no_context|bad_area\w*|(do_|default_do_)?nmi\w*|end_repeat_nmi|"
    r"fixup_bug|__bad_area\w*|page_fault_oops|die_addr|handle_bug"
)


def kind_of(message: str) -> str:
    """The kind of a crash by its message."""
    return next(kind for kind, pattern in _KINDS if re.search(pattern, message))


def of_kernel(
    kernel: "Linux", header: "Header", lines: Sequence[str], trace: "Trace | None", domain: int
) -> Crash | None:
    """The crash of a kernel; None if its log shows none.

    ``lines`` are the last ones of its log, ``trace`` is the stack of the panicking task.
    """
    if header.panic is None:
        return None
    said = [line for line in lines if re.search(_LINES, line)]
    said = [line for line in said if "---[ end" not in line][-_MAX_LINES:]
    panics = [line for line in said if "Kernel panic" in line]
    message = panics[-1] if panics else header.panic
    kind = kind_of(message)
    if kind in ("panic", "oops"):
        # The line of the panic says less than those before it.
        kind = next((k for line in said if (k := kind_of(line)) not in ("panic", "oops")), kind)
    found = None
    # What was asked for is no fault; a panic of init is not one of the kernel.
    logged = None if kind == "sysrq" and not _has_oops(lines) else oops.find(lines)
    if logged is not None and kind != "init":
        found = _logged(kernel, logged)
    if found is None and trace is not None:
        found = in_stack(kernel, trace)
    panicking = header.task
    return {
        "who": "kernel",
        "domain": domain,
        "kind": kind,
        "message": short(message),
        "lines": list(map(short, said)),
        "cpu": None if panicking is None else panicking.cpu,
        "task": None if panicking is None else task(panicking, states.of(kernel)),
        "frames": [] if trace is None else frames(trace.frames, MAX_REPORT_FRAMES),
        "oops": found,
    }


def _has_oops(lines: Sequence[str]) -> bool:
    return any("Oops" in line for line in lines)


def _label(symbols: "Symbols | None") -> code.Label:
    def label(address: int) -> tuple[str, int] | None:
        found = None if symbols is None else symbols.lookup(address)
        if found is None or (found.size and address - found.address >= found.size):
            return None
        return found.name, address - found.address

    return label


def _logged(kernel: "Linux", found: oops.LogOops) -> Oops:
    """An oops in the log, with the code in memory."""
    label = _label(kernel.code)
    pc = found.address
    if pc is None and found.symbol is not None and found.offset is not None:
        every = [s for s in kernel.code.all(found.symbol) if s.module == found.module]
        if len(every) == 1:  # else its address is not certain
            pc = every[0].address + found.offset
    codes = []
    if found.code:
        codes.append(code.in_log(found.code, found.code_at, pc, kernel.word, kernel.virtual, label))
    if pc is not None:
        codes.append(code.in_memory(kernel.virtual, kernel.word, pc, label))
    place = None if pc is None else label(pc)
    return {
        "source": "log",
        "title": None if found.title is None else short(found.title),
        "error": found.error,
        "pc": None if pc is None else hex(pc),
        "symbol": found.symbol or (None if place is None else place[0]),
        "offset": found.offset if found.symbol else None if place is None else place[1],
        "module": found.module,
        "registers": registers(found.registers),
        "code": [one for one in codes if one is not None],
    }


def in_stack(kernel: "Linux", trace: "Trace") -> Oops | None:
    """Where the panicking task failed, by its stack: an exception, else the call of panic()."""
    is_handled = False
    begun = None
    for i, frame in enumerate(trace.frames):
        name = (frame.symbol or "").partition(".")[0]
        if frame.user:
            break
        if frame.interrupted and is_handled and frame.registers:
            return _of_frame(kernel, frame, frame.registers, is_return=False)
        is_handled = is_handled or re.fullmatch(_EXCEPTION, name) is not None
        if re.fullmatch(_PANIC, name) or is_handled:
            begun = i + 1
    if begun is None or begun >= len(trace.frames) or trace.frames[begun].user:
        return None
    frame = trace.frames[begun]
    return _of_frame(kernel, frame, frame.registers, is_return=not frame.interrupted)


def _of_frame(
    kernel: "Linux", frame: "Frame", saved: Mapping[str, int] | None, *, is_return: bool
) -> Oops:
    label = _label(kernel.code)
    found = code.in_memory(kernel.virtual, kernel.word, frame.pc, label, is_return=is_return)
    return {
        "source": "memory",
        "title": "the call that led to the panic" if is_return else "the interrupted instruction",
        "error": None,
        "pc": hex(frame.pc),
        "symbol": frame.symbol,
        "offset": frame.offset,
        "module": frame.module,
        "registers": registers(saved),
        "code": [] if found is None else [found],
    }


#: Kinds of crashes of Xen itself, by what it printed.
_XEN_KINDS = (
    ("requested", r"'C' pressed -> triggering crashdump"),
    ("watchdog", r"(?i)watchdog timer|watchdog.* NMI|stuck"),
    ("machine check", r"(?i)machine check|MCE|vector = 18\b"),
    ("nmi", r"\bNMI\b|vector = 2\b"),
    ("panic", r""),
)


def of_xen(
    xen: "XenHost",
    reason: str | None,
    lines: Sequence[str],
    traces: "Sequence[PcpuTrace]",
    cpu: int | None,
) -> Crash | None:
    """The crash of Xen itself, by the reason that it printed; None if it is not Xen's own."""
    requested = any("triggering crashdump" in line for line in lines)
    if reason is None and not requested:
        return None
    if reason is not None and re.match(r"(Hardware Dom\d+|Domain 0) (crashed|shutdown)", reason):
        return None
    message = reason or "'C' pressed -> triggering crashdump"
    said = [line for line in lines if re.search(_XEN_LINES, line)][-_MAX_LINES:]
    whole = "\n".join([message, *said])
    kind = next(kind for kind, pattern in _XEN_KINDS if re.search(pattern, whole))
    trace = next((one for one in traces if one.pcpu.number == cpu), None)
    return {
        "who": "hypervisor",
        "domain": None,
        "kind": kind,
        "message": short(message),
        "lines": list(map(short, said)),
        "cpu": cpu,
        "task": None,
        "frames": [] if trace is None else frames(trace.frames, MAX_REPORT_FRAMES),
        "oops": _of_xen_code(xen, lines, trace),
    }


_XEN_LINES = (
    r"Panic on CPU|FATAL|Assertion|BUG at|Xen call trace|pressed -> triggering|[Ww]atchdog|"
    r"----\[ Xen-|RIP:|Fatal|Pagetable walk|Faulting linear address|error_code"
)


def _of_xen_code(xen: "XenHost", lines: Sequence[str], trace: "PcpuTrace | None") -> Oops | None:
    word: WordSize = 8 if xen.word == 8 else 4
    label = _label(xen.symbols)
    found = oops.find_xen(lines)
    pc: int | None
    if found is not None and found.address is not None:
        pc, saved, source, title = found.address, found.registers, "log", found.title
    elif trace is not None and trace.frames and not trace.frames[0].user:
        pc, saved = trace.frames[0].pc, dict(trace.frames[0].registers or {})
        source, title = "memory", "the innermost frame"
    else:
        return None
    codes = []
    if found is not None and found.code:
        codes.append(code.in_log(found.code, found.code_at, pc, word, xen.memory.virtual, label))
    codes.append(code.in_memory(xen.memory.virtual, word, pc, label))
    place = label(pc)
    return {
        "source": source,
        "title": title,
        "error": None,
        "pc": hex(pc),
        "symbol": None if place is None else place[0],
        "offset": None if place is None else place[1],
        "module": None,
        "registers": registers(saved),
        "code": [one for one in codes if one is not None],
    }
