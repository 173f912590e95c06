"""Commands of crash that drgn runs: what a module of the command table needs for one.

``xkdump crash`` runs all of drgn's; these have an entry of their own because they are the questions
that follow a backtrace, and so that the shell has them.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from typing import NamedTuple, TypedDict

from ..output.json_types import Count
from ..session import Domain
from .contract import Operands, UsageError

OPERANDS = Operands("ARGUMENT", "arguments of crash's command; options after --", "...")


class Options(NamedTuple):
    """The arguments."""

    #: As crash takes them.
    operands: Sequence[str] = ()


def runner(name: str) -> Callable[..., "Printed"]:
    """The function ``run`` of a command of crash.

    MissingPackageError if drgn is not installed; UsageError for wrong arguments; AbsentError if the
    dump, or drgn's types, lack what it needs.
    """

    def run(target: Domain, options: Options = Options()) -> Printed:
        from ..bridges.drgn import crash, program_of

        program = program_of(target)
        out = io.StringIO()
        try:
            with redirect_stdout(out):
                crash.run(program, [name, *options.operands])
        except crash.CommandUsageError as error:
            raise UsageError(str(error)) from None
        lines = out.getvalue().splitlines()
        return Printed(target.id, lines, [f"{name}: printed by drgn's command of this name"])

    return run


class JSON(TypedDict):
    """What such a command prints with ``--json``: its lines."""

    domain: Count
    lines: list[str]


class Printed(NamedTuple):
    """What drgn printed."""

    domain: int
    lines: Sequence[str]
    warnings: Sequence[str]

    def text(self) -> Iterator[str]:
        """The lines."""
        yield from self.lines

    def json(self) -> JSON:
        """The lines."""
        return {"domain": self.domain, "lines": list(self.lines)}
