"""``xkdump bt``."""

import argparse
from collections.abc import Sequence

from ..output.writer import show, telling
from . import hypervisor, unwinding
from .kernel import kernel_arguments, open_domain


def add_arguments(parser: argparse.ArgumentParser, name: str, argv: Sequence[str]) -> None:
    """The arguments of ``bt``."""
    if hypervisor.is_asked(argv):
        hypervisor.add_arguments(parser)
        return
    kernel_arguments(parser)
    hypervisor.add_option(parser, name)
    parser.add_argument(
        "tasks", nargs="*", default=[], metavar="PID|TASK", help="a pid, or a task's address in hex"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-a", "--active", action="store_true", help="what every CPU was running")
    which.add_argument("--all", action="store_true", help="every task")
    unwinding.add_option(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the backtraces."""
    if args.hypervisor:
        hypervisor.run(args)
        return
    from ..commands import bt
    from ..render import bt as render

    domain = open_domain(args)
    with telling(domain):
        result = bt.run(domain, args.tasks, active=args.active, everyone=args.all)
    show(args, render, result, domain)
