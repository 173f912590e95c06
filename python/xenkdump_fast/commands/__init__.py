"""The commands of ``xkdump``, one file each; this table lists them.

A command is a module of this package with these names (``contract.py`` has the types):

``Options``
    A NamedTuple of the options, with defaults. A member ``task: str | None = None`` needs no
    option: in the shell it is the current task (``set PID``) as an operand that
    ``selection.select`` takes, for when no other task is asked for; None on the command line.
``OPERANDS``
    The operands after the files on the command line; absent if there are none. The words of its
    ``metavar`` (PID, TASK, COMM, SYMBOL, STRUCT, DOMAIN) say what the shell completes them with.
``add_options(parser)``
    Adds the command's own options to an argparse parser; absent if there are none. Their
    ``metavar`` and ``choices`` are completed in the same way.
``from_crash(words)``
    Replaces what has another meaning in crash, before the words are parsed; absent if nothing has.
``JSON``
    A TypedDict of what ``--json`` prints; ``HYPERVISOR_JSON`` with ``--hypervisor``.
``run(target, options) -> Result``
    Queries an open target, and prints nothing. The table has the kind of target. The shell runs
    many commands on one target: what a command changes in it, later ones see.

A command that is ``interactive`` has no ``JSON``, and its ``run`` returns a ``Service``: it passes
control to another program, or serves one. The shell does not offer it.
"""

from .._typing import Literal, NamedTuple

#: The target of a command: a domain with its kernel, a whole dump, or none.
Target = Literal["domain", "dump", "none"]


class Command(NamedTuple):
    """One row of the table."""

    name: str
    summary: str
    target: Target
    #: Whether the files include a vmlinux.
    vmlinux: Literal["required", "optional", "no"] = "no"
    #: What it shows of Xen with ``--hypervisor``; None if it does not have the option.
    hypervisor: str | None = None
    #: Whether it runs on all domains with ``--domain all``.
    all_domains: bool = False
    #: Whether it passes control to another program, or serves one, and prints no result.
    interactive: bool = False
    #: Whether it is about all domains at once: it has no ``--domain``.
    whole: bool = False
    #: The option that takes the dump for a raw image; ``--format`` may be that of the output.
    input_format: str = "--format"
    #: The member of ``Options`` with which there is no dump, and ``run`` has no target.
    without_dump: str | None = None

    @property
    def module(self) -> str:
        """The name of its module."""
        return self.name.replace("-", "_")


_TABLE = (
    Command(
        "bt",
        "backtraces of tasks; of the panicking task by default",
        "domain",
        "required",
        hypervisor="the Xen stack of every pCPU",
        all_domains=True,
    ),
    Command(
        "sys",
        "the session header: KERNEL to STATE",
        "domain",
        "required",
        hypervisor="Xen's version, uptime, memory and panic message",
        all_domains=True,
    ),
    Command("ps", "the tasks", "domain", "required", all_domains=True),
    Command(
        "log",
        "the kernel's log",
        "domain",
        "required",
        hypervisor="Xen's console",
        all_domains=True,
    ),
    Command("cmdline", "the kernel's command line", "domain", "required", all_domains=True),
    Command("mod", "the loaded modules", "domain", "required", all_domains=True),
    Command("vtop", "translate virtual addresses by a page-table walk", "domain", "required"),
    Command("rd", "read memory", "domain", "required", hypervisor="Xen's memory"),
    Command(
        "sym",
        "symbols by name and by address",
        "domain",
        "required",
        hypervisor="Xen's symbols",
    ),
    Command("dis", "disassemble code", "domain", "required", hypervisor="Xen's code"),
    Command(
        "search",
        "search memory for numbers or text",
        "domain",
        "required",
        hypervisor="Xen's memory",
    ),
    Command("waits", "what uninterruptible tasks wait for, and deadlocks", "domain", "required"),
    Command("struct", "layouts of structs, and instances in memory", "domain", "required"),
    Command("union", "layouts of unions, and instances in memory", "domain", "required"),
    Command("task", "the task_struct and thread_info of tasks", "domain", "required"),
    Command("list", "the entries of a linked list", "domain", "required"),
    Command("tree", "the entries of a tree", "domain", "required"),
    Command("whatis", "definitions of types and variables", "domain", "required"),
    Command("p", "evaluate an expression", "domain", "required"),
    Command("files", "the open files of processes", "domain", "required"),
    Command("mount", "the mounted file systems", "domain", "required"),
    Command("net", "network devices, the ARP table and sockets", "domain", "required"),
    Command("dev", "character and block devices, disks, PCI, I/O ports", "domain", "required"),
    Command("vm", "the virtual memory areas of processes", "domain", "required"),
    Command(
        "runq",
        "the run queues of the CPUs",
        "domain",
        "required",
        hypervisor="the run queues of Xen's scheduler, as of sched",
    ),
    Command("timer", "pending timers", "domain", "required"),
    Command("irq", "interrupts and their handlers", "domain", "required"),
    Command("kmem", "memory usage; slabs and pages by drgn", "domain", "required"),
    Command("ipcs", "System V shared memory, semaphores and message queues", "domain", "required"),
    Command("swap", "swap devices and files", "domain", "required"),
    Command("check", "compare all P2M sources of a domain", "dump", "optional"),
    Command(
        "signature",
        "what identifies the fault: its kind and where it happened",
        "dump",
        "optional",
        without_dump="log",
    ),
    Command("notes", "every ELF note, decoded", "dump"),
    Command("domains", "every domain of a Xen host, or some of them in full", "dump"),
    Command("vcpus", "every vCPU of every domain", "dump"),
    Command("pcpus", "every pCPU of a Xen host", "dump"),
    Command("sched", "the run queues of Xen's scheduler", "dump"),
    Command("evtchn", "the event channels of domains", "dump"),
    Command("grants", "the grant tables of domains", "dump"),
    Command(
        "report",
        "write a report of everything: what died and why, the host, every domain",
        "dump",
        "optional",
        whole=True,
    ),
    Command(
        "export",
        "write a domain's memory and registers to a file for other tools",
        "dump",
        "optional",
        hypervisor="Xen itself",
        input_format="--input-format",
    ),
    Command(
        "shell",
        "a prompt for commands on a dump that stays open",
        "domain",
        "required",
        interactive=True,
    ),
    Command("gdb", "start gdb on a domain", "domain", "required", interactive=True),
    Command(
        "gdb-server",
        "serve a domain to gdb: registers and memory of vCPUs and tasks",
        "domain",
        "required",
        interactive=True,
    ),
    Command(
        "drgn",
        "open drgn on a domain: its prompt, a script, or one piece of code",
        "domain",
        "required",
        hypervisor="Xen itself, with the DWARF of its xen-syms",
        interactive=True,
    ),
    Command(
        "crash",
        "run one of drgn's crash-compatible commands on a domain",
        "domain",
        "required",
        interactive=True,
    ),
    Command(
        "volatility",
        "run volatility3's plugins on a domain",
        "domain",
        "required",
        interactive=True,
    ),
    Command("isf", "write the symbol file of a kernel for volatility3", "domain", "required"),
    Command("triage", "examine many dumps, and sort them by signature", "none"),
    Command("sample", "write a small synthetic dump to learn on and to test with", "none"),
    Command("completion", "print the completion script for a shell", "none"),
)

#: By name, in the order of ``xkdump --help``.
COMMANDS = {command.name: command for command in _TABLE}
