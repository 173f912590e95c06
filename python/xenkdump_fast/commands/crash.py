"""``crash``: drgn's crash-compatible commands on a domain."""

from collections.abc import Sequence

from .._typing import TYPE_CHECKING, NamedTuple
from ..session import Domain
from .contract import Operands, OutputError, UsageError

if TYPE_CHECKING:
    from drgn import Program

OPERANDS = Operands(
    "COMMAND", "a command of crash and its arguments; help: the list of commands", "..."
)


class Options(NamedTuple):
    """The command."""

    #: Its name and its arguments; the list of commands if there are none.
    operands: Sequence[str] = ()


def run(target: Domain, options: Options = Options()) -> "Command":
    """Makes a program of drgn of the domain.

    MissingPackageError if drgn is not installed.
    """
    from ..bridges.drgn import program_of

    return Command(program_of(target), options.operands or ["help"])


class Command(NamedTuple):
    """A command, ready to be run."""

    program: "Program"
    words: Sequence[str]

    def serve(self) -> None:
        """Runs the command. UsageError if there is none of that name or its arguments are wrong.

        AbsentError if the dump, or drgn's types, lack what it needs, OutputError if stdout or the
        file of a redirection cannot be written.
        """
        from ..bridges.drgn import crash

        try:
            crash.run(self.program, self.words)
        except crash.CommandUsageError as error:
            raise UsageError(str(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            where = error.filename or "stdout"
            raise OutputError(f"cannot write to {where}: {error.strerror or error}") from None
