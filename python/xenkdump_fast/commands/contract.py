"""The arguments and results of commands."""

from collections.abc import Iterator, Mapping, Sequence

from .._typing import Literal, NamedTuple, Protocol


class Operands(NamedTuple):
    """The operands that follow the files."""

    metavar: str
    help: str
    #: As for argparse: "*" any number, "+" at least one, "1" exactly one. "..." is the rest of the
    #: command line from the first operand on, with what looks like an option.
    arity: Literal["*", "+", "1", "..."] = "*"
    #: The valid ones; None if they cannot be listed.
    choices: Sequence[str] | None = None
    #: Whether they are also accepted with ``--hypervisor``.
    hypervisor: bool = False


class Result(Protocol):
    """The result of a command.

    A result may also have ``warnings``, printed after those of the target, and ``failure``: why the
    exit status is 1 although there is something to print. In JSON it is a member of the object.
    With ``body()``, that is the text below a heading that names the domain.
    With ``data`` that is not None, these bytes are printed in place of ``text()``.
    """

    def text(self) -> Iterator[str]:
        """Lines of text, without line ends.

        The writer escapes control characters. A field that is padded has to be escaped before.
        """
        ...

    def json(self) -> Mapping[str, object]:
        """The command's own members of the JSON object. An iterator becomes a list.

        The return type is the TypedDict that the module names ``JSON`` (``HYPERVISOR_JSON``).
        """
        ...


class Service(Protocol):
    """What an interactive command returns."""

    def serve(self) -> None:
        """Returns when the user or the other program has ended it, or never.

        The warnings of the target were printed before, and no progress line is shown.
        """
        ...


class OutputError(Exception):
    """The files of the command cannot be written; exit status 74."""


class UsageError(Exception):
    """The arguments ask for something that does not exist; exit status 2."""
