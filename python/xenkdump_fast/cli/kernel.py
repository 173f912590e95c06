"""Commands that read a domain's kernel; two of them read Xen itself with ``--hypervisor``."""

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from ..output.writer import show, telling
from . import hypervisor

if TYPE_CHECKING:
    from ..session.domain import Domain

#: What the operands of a command are, and how many; those that are not here take none.
_OPERANDS = {
    "ps": ("PID|TASK|COMM", "a pid, a task's address in hex, or a command's name", "*"),
    "vtop": ("ADDRESS|SYMBOL", "virtual, in hex, or a symbol's name", "+"),
}


def add_arguments(parser: argparse.ArgumentParser, name: str, argv: Sequence[str]) -> None:
    """The arguments of the command ``name``."""
    if name in hypervisor.COMMANDS and hypervisor.is_asked(argv):
        hypervisor.add_arguments(parser)
        return
    kernel_arguments(parser)
    if name in hypervisor.COMMANDS:
        hypervisor.add_option(parser, name)
    if name in _OPERANDS:
        metavar, what, count = _OPERANDS[name]
        parser.add_argument("operands", nargs=count, default=[], metavar=metavar, help=what)


def run(args: argparse.Namespace) -> None:
    """Runs the command and prints what it found."""
    if getattr(args, "hypervisor", False):
        hypervisor.run(args)
        return
    command = import_module(f"..commands.{args.command}", __package__)
    render = import_module(f"..render.{args.command}", __package__)
    domain = open_domain(args)
    operands = (args.operands,) if args.command in _OPERANDS else ()
    with telling(domain):
        result = command.run(domain, *operands)
    show(args, render, result, domain)


def kernel_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that reads a kernel."""
    parser.add_argument("vmlinux", metavar="VMLINUX", help="the kernel's ELF file")
    parser.add_argument("vmcore", metavar="VMCORE", help="the dump")
    parser.add_argument("--domain", type=int, default=0, metavar="ID", help="default: 0, dom0")
    parser.add_argument("--p2m-source", metavar="SOURCE", help="force one: list, linear or cr3")
    parser.add_argument("--force", action="store_true", help="accept a vmlinux of another build")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def open_domain(args: argparse.Namespace) -> "Domain":
    """The domain that the arguments name; what is wrong with the file is said even if it fails."""
    from .. import session
    from ..xen import p2m_sources
    from . import UsageError

    if args.p2m_source is not None and args.p2m_source not in p2m_sources.NAMES:
        raise UsageError(
            f"no such P2M source: {args.p2m_source!r} (there are {', '.join(p2m_sources.NAMES)})"
        )
    dump = session.open(args.vmcore)
    with telling(dump):
        return dump.domain(
            args.domain,
            args.vmlinux,
            p2m_source=args.p2m_source,
            force=args.force,
            unwind=getattr(args, "unwind", None),
        )
