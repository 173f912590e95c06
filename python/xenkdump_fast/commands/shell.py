"""``shell``: a prompt for commands on a dump that stays open; its code is in ``shell/``."""

import argparse
from collections.abc import Sequence

from .._typing import NamedTuple


class Options(NamedTuple):
    """Where the lines are from, and what they may do."""

    #: Lines to run in place of a prompt.
    lines: Sequence[str] = ()
    #: A file with lines to run in place of a prompt.
    input: str | None = None
    #: Whether lines of the prompt are kept for later sessions.
    history: bool = True
    #: Whether lines may run other programs.
    shell_escapes: bool = False
    #: Path of Xen's symbols.
    xen_syms: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``shell``."""
    add = parser.add_argument
    add(
        "-c",
        dest="lines",
        action="append",
        default=[],
        metavar="LINE",
        help="run this line in place of a prompt; may be given more than once",
    )
    add("-i", "--input", metavar="FILE", help="run the lines of this file in place of a prompt")
    add(
        "--no-history",
        dest="history",
        action="store_false",
        help="neither read nor write the history of earlier sessions",
    )
    add(
        "--shell-escapes",
        action="store_true",
        help="allow !COMMAND, and other programs than the built-in filters after a |",
    )
    add("--xen-syms", metavar="XEN-SYMS", help="Xen's symbols, for --hypervisor")
