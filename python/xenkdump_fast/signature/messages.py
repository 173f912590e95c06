"""What kernels print when a fault happens: data, as regular expressions.

The texts are those of x86 from Linux 2.6 to 7.x. A pattern with free text in it has a bounded
length and starts near the start of a line, so that a hostile line takes no quadratic time.
``Message.cause`` says what a line is evidence of:

``fault``     an exception: it is the end, unless the kernel went on after an oops
``panic``     the end; its text may refer to an earlier line
``symptom``   something that is only the cause of a panic that refers to it
"""

import re

from .._typing import Literal, NamedTuple

Cause = Literal["fault", "panic", "symptom"]


class Message(NamedTuple):
    """A kind of fault, and the line that announces it."""

    kind: str
    #: A text that every such line has: a pattern is compiled for a line that may match only.
    words: str
    pattern: str
    cause: Cause


def _faults(*rows: tuple[str, str, str]) -> tuple[Message, ...]:
    return tuple(Message(kind, words, pattern, "fault") for kind, words, pattern in rows)


def _symptoms(*rows: tuple[str, str, str]) -> tuple[Message, ...]:
    return tuple(Message(kind, words, pattern, "symptom") for kind, words, pattern in rows)


#: The panic's own line; group 1 is its text. "---[ end Kernel panic" repeats it.
PANIC = r"(?<!end )Kernel panic(?: - not syncing)?: (.*)"

#: The first that matches a line decides.
MESSAGES = (
    Message("panic", "Kernel panic", PANIC, "panic"),
    *_faults(
        (
            "stack-overflow",
            "stack guard page",
            r"BUG: (?:TASK|IRQ|ESTACK|\S+)? ?stack guard page was hit",
        ),
        ("stack-overflow", "stack overflow", r"kernel stack overflow|BUG: stack overflow"),
        # 5.1 (f28b11a2abd9) changed the texts.
        (
            "null-dereference",
            "NULL pointer",
            r"nable to handle kernel NULL pointer dereference",
        ),
        ("null-dereference", "NULL pointer", r"BUG: kernel NULL pointer dereference"),
        (
            "page-fault",
            "nable to handle",
            r"nable to handle (?:kernel paging request|page fault for address)",
        ),
        ("page-fault", "nable to handle", r"nable to handle kernel access to user memory"),
        ("page-fault", "supervisor", r"BUG: supervisor "),
        ("general-protection", "protection", r"general protection fault(?:: |, | maybe)"),
        ("double-fault", "double fault", r"(?:^|[ :])double fault(?:: |, )"),
        ("bug", "ernel BUG at", r"kernel BUG at |Kernel BUG at "),
        ("invalid-opcode", "invalid op", r"invalid (?:opcode|operand): [0-9a-f]{4}"),
        ("divide-error", "divide error", r"divide error: [0-9a-f]{4}"),
        ("stack-segment", "stack segment", r"stack segment: [0-9a-f]{4}"),
        ("segment-not-present", "segment not", r"segment not present: [0-9a-f]{4}"),
        ("invalid-tss", "invalid TSS", r"invalid TSS: [0-9a-f]{4}"),
        ("alignment-check", "alignment check", r"alignment check: [0-9a-f]{4}"),
        ("breakpoint", "int3", r"(?:^|[ :])int3: [0-9a-f]{4}"),
        ("debug-exception", "debug: ", r"(?:^|[ :])debug: [0-9a-f]{4}"),
        ("overflow", "overflow: ", r"(?:^|[ :])overflow: [0-9a-f]{4}"),
        ("bounds", "bounds: ", r"(?:^|[ :])bounds: [0-9a-f]{4}"),
        ("simd-exception", "simd exception", r"simd exception: [0-9a-f]{4}"),
        ("control-protection", "control protection", r"control protection(?:: | fault)"),
        ("control-protection", "Missing ENDBR", r"Missing ENDBR: "),
        ("cfi", "CFI failure", r"CFI failure(?: at |:)"),
        ("oops", "Oops", r"Oops: (?:Oops: )?[0-9a-f]{4}|Oops - "),
        ("machine-check", "Hardware Error", r"\[Hardware Error\]: Machine check: "),
        ("machine-check", "Machine check", r"Machine check events? fatal"),
    ),
    *_symptoms(
        ("soft-lockup", "soft lockup", r"BUG: soft lockup(?: detected on| - ) ?CPU#?\d+"),
        (
            "hard-lockup",
            "LOCKUP",
            r"detected (?:hard )?LOCKUP on cpu|detected hard LOCKUP|NMI Watchdog detected LOCKUP",
        ),
        (
            "hung-task",
            "INFO: task",
            r"^.{0,64}?INFO: task .{1,64}?:\d+ (?:<\S+> )?(?:is )?blocked "
            r"(?:for more than|in I/O wait)",
        ),
        ("rcu-stall", "INFO: rcu", r"INFO: rcu\S* (?:self-)?detected (?:expedited )?stalls? "),
        ("kasan", "KASAN", r"BUG: KASAN: "),
        ("kfence", "KFENCE", r"BUG: KFENCE: "),
        ("kmsan", "KMSAN", r"BUG: KMSAN: "),
        ("kcsan", "KCSAN", r"BUG: KCSAN: "),
        ("ubsan", "UBSAN", r"UBSAN: "),
        ("atomic-sleep", "scheduling while", r"BUG: scheduling while atomic"),
        (
            "warning",
            "WARNING: ",
            r"WARNING: (?:CPU: \d+ PID: \d+ )?at |^.{0,64}?WARNING: .{1,200}?:\d+ at "
            r"|WARNING: CPU: \d+",
        ),
        ("out-of-memory", "oom-killer", r"invoked oom-killer: "),
        ("nmi", "NMI: ", r"NMI: (?:PCI system error|IOCK error|IO check error|unknown NMI)"),
    ),
)

#: Words of which every message has one: most lines of a log have none.
_WORDS = (
    *("panic", "BUG", "fault", "nable to handle", "overflow", "invalid ", "error", "segment"),
    *("check", "int3", "debug:", "bounds:", "exception", "ENDBR", "CFI", "Oops", "LOCKUP"),
    *("INFO: ", "SAN: ", "WARNING", "oom-killer", "NMI", "control protection", "guard"),
)


def of(line: str) -> Message | None:
    """The message that a line is; None if it announces nothing."""
    if not any(word in line for word in _WORDS):
        return None
    likely = (message for message in MESSAGES if message.words in line)
    return next((message for message in likely if re.search(message.pattern, line)), None)


#: Reports of tools whose own words tell faults apart, as "use-after-free".
REPORT = r"(?:KASAN|KFENCE|KMSAN|KCSAN|UBSAN): ([\w-]+)"
REPORTS = frozenset(("kasan", "kfence", "kmsan", "kcsan", "ubsan"))

#: Panics by their text: the kind, and the kinds of earlier lines that they may refer to. With "*"
#: any exception, which is then the fault, and the panic its consequence.
PANICS = (
    (r"^Fatal exception|^Attempted to kill the idle task|^Aiee, killing", "panic", "*"),
    (r"^Attempted to kill init!|^Oops: |^die\b|^Fatal trap|^panic_on_oops", "panic", "*"),
    (r"^sysrq triggered crash|^SysRq : Trigger a crash", "sysrq", ""),
    (r"softlockup: hung tasks", "soft-lockup", "soft-lockup"),
    (r"Hard LOCKUP|hard LOCKUP|detected LOCKUP|nmi watchdog", "hard-lockup", "hard-lockup"),
    (r"hung_task: blocked tasks", "hung-task", "hung-task"),
    (r"^RCU Stall", "rcu-stall", "rcu-stall"),
    (
        r"panic_on_warn set",
        "warning",
        "warning kasan kfence kmsan kcsan ubsan atomic-sleep bug",
    ),
    (r"^kasan\.fault|^KASAN", "kasan", "kasan"),
    (r"^Out of memory|deadlocked on memory|^out of memory", "out-of-memory", "out-of-memory"),
    (r"^stack-protector: ", "stack-protector", ""),
    (r"^corrupted stack end|^kernel stack overflow", "stack-overflow", "stack-overflow"),
    (r"^Machine halted", "double-fault", "double-fault stack-overflow"),
    (r"[Mm]achine check|^Uncorrected|[Uu]ncorrectable|^Fatal hardware", "machine-check", ""),
    (r"NMI|Non maskable|^An NMI occurred", "nmi", "nmi"),
)

#: Where a stack in a log ends although more functions follow.
END_OF_STACK = (
    r"---\[ end |</TASK>|^Allocated by task|^Freed by task|^Showing all locks|^Mem-Info:"
    r"|^The buggy address|^Last potentially related|^Kernel Offset: |^Task dump for CPU"
    r"|^Sending NMI|^INFO: lockdep is turned off|^RIP +\[<|^RIP: \w+\+0x\w+/0x\w+ RSP:"
)
#: What encloses the functions of an interrupt, in each generation of show_trace().
CONTEXT_ENDS = r"</(?:IRQ|NMI|SOFTIRQ|#DF|#DB|#MC|#VC|ENTRY)>|<EOI>|<<EOE>>|<EOE>"

#: Xen's last words; group 1, if any, is its text.
XEN_PANIC = r"Panic on CPU \d+:\s*(.*)"
XEN_CRASHDUMP_KEY = r"'C' pressed -> triggering crashdump"
XEN_DOM0_CRASH = r"Hardware Dom\d+ (?:crashed|shutdown)|Domain 0 crashed"
XEN_TRACE = r"Xen call trace:"
XEN_WATCHDOG = r"Watchdog timer detects that CPU\d+ is stuck"
XEN_TRAP = r"(?:FATAL TRAP|Fatal TRAP)[^\n]*?vec(?:tor)? (?:= )?(\d+)"
XEN_PAGE_FAULT = r"(?i)(?:FATAL|Early fatal) PAGE FAULT|[Ee]arly fatal page fault"
XEN_DOUBLE_FAULT = r"DOUBLE FAULT"
XEN_BUG = r"Xen BUG at (\S+?):\d+"
XEN_ASSERTION = r"^.{0,64}?Assertion '(.{0,400}?)' failed at "
XEN_MACHINE_CHECK = r"[Mm]achine [Cc]heck|\bMCE\b|\bMCA\b"
#: Names of x86's exceptions by vector.
XEN_VECTORS = {
    0: "divide-error",
    1: "debug-exception",
    2: "nmi",
    3: "breakpoint",
    4: "overflow",
    5: "bounds",
    6: "invalid-opcode",
    7: "device-not-available",
    8: "double-fault",
    10: "invalid-tss",
    11: "segment-not-present",
    12: "stack-segment",
    13: "general-protection",
    14: "page-fault",
    16: "fpu-error",
    17: "alignment-check",
    18: "machine-check",
    19: "simd-exception",
    21: "control-protection",
}
