"""``check``: the sources of a P2M against each other."""

import argparse
from collections.abc import Sequence

from ..output.writer import show, telling


def add_arguments(parser: argparse.ArgumentParser, name: str, argv: Sequence[str]) -> None:
    """The arguments of the command."""
    what = "the kernel's ELF file, for the sources that need its symbols"
    parser.add_argument("vmlinux", nargs="?", metavar="VMLINUX", help=what)
    parser.add_argument("vmcore", metavar="VMCORE", help="the dump")
    parser.add_argument("--domain", type=int, default=0, metavar="ID", help="default: 0, dom0")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(args: argparse.Namespace) -> None:
    """Runs the command, prints what it found; AbsentError where the sources disagree."""
    from .. import session
    from .._native import AbsentError
    from ..commands import check
    from ..render import check as render

    dump = session.open(args.vmcore)
    with telling(dump):
        result = check.run(dump, args.domain, args.vmlinux)
    show(args, render, result, dump)
    if result.disagreements:
        raise AbsentError(
            f"{args.vmcore}: the P2M sources of domain {args.domain} disagree on "
            f"{result.disagreements} pfns"
        )
