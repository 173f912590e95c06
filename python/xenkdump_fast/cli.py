"""``xkdump``: arguments, exit codes, text or JSON."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ._native import AbsentError, DumpError

#: Exit statuses.
FINE, ABSENT, USAGE, BROKEN = 0, 1, 2, 3

#: Commands that read a domain's kernel and take no options of their own: what they give, and what
#: their operands are. Each is ``run(domain)`` or ``run(domain, operands)`` of commands/NAME.py.
_KERNEL_COMMANDS: dict[str, tuple[str, tuple[str, str] | None]] = {
    "sys": ("the session header: KERNEL to STATE", None),
    "log": ("the kernel's log", None),
    "mod": ("the loaded modules", None),
    "ps": ("the tasks", ("PID|TASK|COMM", "a pid, a task's address in hex, or a command's name")),
    "vtop": ("walk the page tables", ("ADDRESS|SYMBOL", "virtual, in hex, or a symbol's name")),
}

#: Those that have a variant for Xen itself, with --hypervisor.
_XEN_COMMANDS = {
    "bt": "the Xen stack of every pCPU",
    "log": "Xen's console",
    "sys": "the hypervisor's version, uptime, memory and end",
}

Output = Callable[[argparse.Namespace], tuple[str, str, dict[str, Any], list[str]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser("--hypervisor" in argv).parse_args(argv)
    try:
        return args.handler(args)  # type: ignore[no-any-return]
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is wrong, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except AbsentError as error:
        return _fail(error, ABSENT)
    except DumpError as error:
        return _fail(error, BROKEN)
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror or error}", BROKEN)


def _fail(error: object, status: int) -> int:
    from .render.escape import visible

    print(f"xkdump: {visible(str(error))}", file=sys.stderr)
    return status


def _parser(of_xen: bool) -> argparse.ArgumentParser:
    """``of_xen``: --hypervisor was given, which takes other operands."""
    parser = argparse.ArgumentParser(
        prog="xkdump",
        description="Reads Xen and Linux kernel crash dumps, any domain of them.",
        epilog="Exit status: 0 fine, 1 the dump does not hold what was asked, 2 wrong usage, "
        "3 the file is not a dump or is broken beyond use.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for name in _XEN_COMMANDS if of_xen else ():
        command = commands.add_parser(name, help=_XEN_COMMANDS[name])
        _xen_arguments(command)
        command.set_defaults(handler=_xen_command, command=name)
    if not of_xen:
        _add_kernel_commands(commands)
    _add_host_commands(commands)
    return parser


def _add_kernel_commands(commands: Any) -> None:
    bt = commands.add_parser("bt", help="backtraces of tasks, the panicking one's first of all")
    _kernel_arguments(bt)
    _hypervisor_argument(bt)
    bt.add_argument(
        "tasks", nargs="*", metavar="PID|TASK", help="a pid, or a task's address in hex"
    )
    which = bt.add_mutually_exclusive_group()
    which.add_argument("-a", "--active", action="store_true", help="what every CPU was running")
    which.add_argument("--all", action="store_true", help="every task")
    bt.add_argument("--unwind", help="limit the methods: orc,cfi,fp,scan")
    bt.set_defaults(handler=_bt)

    for name, (what, operand) in _KERNEL_COMMANDS.items():
        command = commands.add_parser(name, help=what)
        _kernel_arguments(command)
        if name in _XEN_COMMANDS:
            _hypervisor_argument(command)
        if operand is not None:
            command.add_argument("operands", nargs="*", metavar=operand[0], help=operand[1])
        command.set_defaults(handler=_kernel_command, command=name)


def _add_host_commands(commands: Any) -> None:
    """Commands that need no kernel's image."""
    domains = commands.add_parser("domains", help="every domain of a Xen host")
    domains.set_defaults(handler=_domains)
    vcpus = commands.add_parser("vcpus", help="every vCPU of every domain")
    vcpus.add_argument(
        "--vmlinux",
        action="append",
        default=[],
        metavar="VMLINUX",
        help="names symbols for the domains that run it; may be given more than once",
    )
    vcpus.set_defaults(handler=_vcpus)
    for command in (domains, vcpus):
        command.add_argument("vmcore", metavar="VMCORE", help="the dump")
        command.add_argument("--all", action="store_true", help="Xen's own domains too")
        command.add_argument("--xen-syms", metavar="XEN-SYMS", help="Xen's symbols, not needed")
        command.add_argument("--json", action="store_true", help="one JSON object instead of text")

    notes = commands.add_parser("notes", help="every ELF note, decoded")
    notes.add_argument("vmcore", metavar="VMCORE")
    notes.add_argument("--json", action="store_true", help="one JSON object instead of text")
    notes.set_defaults(handler=_notes)


def _hypervisor_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hypervisor",
        action="store_true",
        help="of Xen itself: the operands are then [XEN-SYMS] VMCORE",
    )


def _xen_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a command that reads Xen itself."""
    parser.add_argument("--hypervisor", action="store_true", help="of Xen itself")
    parser.add_argument(
        "xen_syms", nargs="?", metavar="XEN-SYMS", help="Xen's ELF file with symbols, or its .map"
    )
    parser.add_argument("vmcore", metavar="VMCORE", help="the dump")
    parser.add_argument("-a", "--active", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--unwind", help="limit the methods: cfi,fp,scan")
    parser.add_argument("--force", action="store_true", help="accept a xen-syms of another build")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _kernel_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that reads a kernel."""
    parser.add_argument("vmlinux", metavar="VMLINUX", help="the kernel's ELF file")
    parser.add_argument("vmcore", metavar="VMCORE", help="the dump")
    parser.add_argument("--domain", type=int, default=0, metavar="ID", help="default: 0, dom0")
    parser.add_argument("--p2m-source", metavar="SOURCE", help="force one: list, linear or cr3")
    parser.add_argument("--force", action="store_true", help="accept a vmlinux of another build")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def _open_domain(args: argparse.Namespace) -> Any:
    from . import session, sources

    if args.p2m_source is not None and args.p2m_source not in sources.NAMES:
        _usage(f"no such P2M source: {args.p2m_source!r} (there are {', '.join(sources.NAMES)})")
    unwind = getattr(args, "unwind", None)
    return session.open(args.vmcore).domain(
        args.domain,
        args.vmlinux,
        p2m_source=args.p2m_source,
        force=args.force,
        unwind=unwind.split(",") if unwind else None,
    )


def _usage(text: str) -> None:
    print(f"xkdump: {text}", file=sys.stderr)
    raise SystemExit(USAGE)


def _print(
    args: argparse.Namespace, render: Any, result: Any, command: str, warnings: list[str]
) -> int:
    from .render.escape import visible

    if args.json:
        from .render.json import document

        print(document(command, args.vmcore, render.json(result), warnings))
    else:
        sys.stdout.write(render.text(result))
    for warning in warnings:
        print(f"xkdump: warning: {visible(warning)}", file=sys.stderr)
    sys.stdout.flush()
    return FINE


def _bt(args: argparse.Namespace) -> int:
    from .commands import bt
    from .render import bt as render

    domain = _open_domain(args)
    result = bt.run(domain, args.tasks, active=args.active, everyone=args.all)
    return _print(args, render, result, "bt", domain.warnings)


def _kernel_command(args: argparse.Namespace) -> int:
    from importlib import import_module

    command = import_module(f".commands.{args.command}", __package__)
    render = import_module(f".render.{args.command}", __package__)
    domain = _open_domain(args)
    operands = () if _KERNEL_COMMANDS[args.command][1] is None else (args.operands,)
    return _print(args, render, command.run(domain, *operands), args.command, domain.warnings)


def _notes(args: argparse.Namespace) -> int:
    from . import session
    from .commands import notes
    from .render import notes as render

    dump = session.open(args.vmcore)
    return _print(args, render, notes.run(dump), "notes", dump.warnings)


def _domains(args: argparse.Namespace) -> int:
    from .commands import domains
    from .render import domains as render

    result = domains.run(args.vmcore, args.xen_syms, everyone=args.all)
    return _print(args, render, result, "domains", result.warnings)


def _vcpus(args: argparse.Namespace) -> int:
    from .commands import vcpus
    from .render import vcpus as render

    result = vcpus.run(args.vmcore, args.xen_syms, args.vmlinux, everyone=args.all)
    return _print(args, render, result, "vcpus", result.warnings)


def _xen_command(args: argparse.Namespace) -> int:
    from importlib import import_module

    from .commands import hypervisor

    render = import_module(f".render.hypervisor_{args.command}", __package__)
    xen = hypervisor.open_xen(args.vmcore, args.xen_syms, force=args.force)
    result: Any
    if args.command == "bt":
        result = hypervisor.bt(xen, args.unwind.split(",") if args.unwind else None)
    elif args.command == "log":
        result = hypervisor.log(xen)
    else:
        result = hypervisor.system(xen, args.xen_syms)
    return _print(args, render, result, f"{args.command} --hypervisor", xen.warnings)
