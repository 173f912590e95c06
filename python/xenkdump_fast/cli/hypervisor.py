"""``--hypervisor``: the commands that can read Xen itself."""

import argparse
from collections.abc import Sequence
from typing import Any

from ..output.writer import show
from . import unwinding

#: What a command gives with ``--hypervisor``.
COMMANDS = {
    "bt": "the Xen stack of every pCPU",
    "log": "Xen's console",
    "sys": "the hypervisor's version, uptime, memory and end",
}


def is_asked(argv: Sequence[str]) -> bool:
    """Whether ``--hypervisor`` was given, which takes other operands."""
    return "--hypervisor" in argv


def add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """The option as the help of the command itself shows it."""
    parser.add_argument(
        "--hypervisor",
        action="store_true",
        help=f"{COMMANDS[name]}; the operands are then [XEN-SYMS] VMCORE",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a command that reads Xen itself."""
    parser.add_argument("--hypervisor", action="store_true", help="of Xen itself")
    parser.add_argument(
        "xen_syms", nargs="?", metavar="XEN-SYMS", help="Xen's ELF file with symbols, or its .map"
    )
    parser.add_argument("vmcore", metavar="VMCORE", help="the dump")
    parser.add_argument("-a", "--active", action="store_true", help=argparse.SUPPRESS)
    unwinding.add_option(parser, unwinding.METHODS[1:])
    parser.add_argument("--force", action="store_true", help="accept a xen-syms of another build")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(args: argparse.Namespace) -> None:
    """Runs the command and prints what it found."""
    from importlib import import_module

    from ..commands import hypervisor

    render = import_module(f"..render.hypervisor_{args.command}", __package__)
    xen = hypervisor.open_xen(args.vmcore, args.xen_syms, force=args.force)
    result: Any
    if args.command == "bt":
        result = hypervisor.bt(xen, args.unwind)
    elif args.command == "log":
        result = hypervisor.log(xen)
    else:
        result = hypervisor.system(xen, args.xen_syms)
    args.command = f"{args.command} --hypervisor"
    show(args, render, result, xen)
