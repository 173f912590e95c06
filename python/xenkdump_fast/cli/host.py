"""Commands that need no kernel's image: the notes, the domains, their vCPUs."""

import argparse
from collections.abc import Sequence
from typing import Any

from ..output.writer import show


def add_arguments(parser: argparse.ArgumentParser, name: str, argv: Sequence[str]) -> None:
    """The arguments of the command ``name``."""
    parser.add_argument("vmcore", metavar="VMCORE", help="the dump")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    if name == "notes":
        return
    parser.add_argument("--all", action="store_true", help="Xen's own domains too")
    parser.add_argument("--xen-syms", metavar="XEN-SYMS", help="Xen's symbols, not needed")
    if name == "vcpus":
        parser.add_argument(
            "--vmlinux",
            action="append",
            default=[],
            metavar="VMLINUX",
            help="names symbols for the domains that run it; may be given more than once",
        )


def run(args: argparse.Namespace) -> None:
    """Runs the command and prints what it found."""
    from importlib import import_module

    render = import_module(f"..render.{args.command}", __package__)
    result: Any
    if args.command == "notes":
        from ..commands import notes
        from ..session.dump_file import DumpFile

        dump = DumpFile(args.vmcore)
        show(args, render, notes.run(dump), dump)
        return
    if args.command == "domains":
        from ..commands import domains

        result = domains.run(args.vmcore, args.xen_syms, everyone=args.all)
    else:
        from ..commands import vcpus

        result = vcpus.run(args.vmcore, args.xen_syms, args.vmlinux, everyone=args.all)
    show(args, render, result, result)
