"""``drgn``: drgn's prompt, a script, or one piece of code, on a domain."""

import argparse
from collections.abc import Sequence

from .._typing import TYPE_CHECKING, NamedTuple
from ..session import Domain
from ..xen.host import XenHost
from .contract import Operands

if TYPE_CHECKING:
    from drgn import Program

OPERANDS = Operands("SCRIPT [ARG ...]", "a script of drgn and its arguments", "...")


class Options(NamedTuple):
    """What to run; the prompt without it."""

    #: A script and its arguments.
    operands: Sequence[str] = ()
    #: An expression or statement, in place of a script.
    code: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``drgn``."""
    parser.add_argument(
        "-e",
        dest="code",
        metavar="CODE",
        help="run this code, with what follows the files in sys.argv",
    )


def run(target: Domain | XenHost, options: Options = Options()) -> "Session":
    """Makes a program of drgn of the domain, or of Xen.

    MissingPackageError if drgn is not installed.
    """
    from ..bridges import drgn

    if isinstance(target, Domain):
        return Session(drgn.program_of(target), options)
    return Session(drgn.program_of_xen(target), options)


class Session(NamedTuple):
    """drgn, ready to be started."""

    program: "Program"
    options: Options

    def serve(self) -> None:
        """Runs the script or the code, or the prompt until the user leaves it.

        An exception of the user's code is printed with its traceback; the exit status is 1 then.
        """
        from ..bridges.drgn import prompt

        words = self.options.operands
        if self.options.code is not None:
            prompt.run_code(self.program, self.options.code, words)
        elif words:
            prompt.run_script(self.program, words)
        else:
            prompt.interact(self.program)
