"""The grammar of a line: commands, pipes and redirections.

::

    line:      pipeline (";" pipeline)*
    pipeline:  command ("|" filter)* redirection?   or   "!" and the rest of the line
    redirection:  ">" FILE   or   ">!" FILE   or   ">>" FILE

Words are separated by white space. Quotes and backslashes take away the meaning of characters, as
in sh; there are no variables and no patterns of file names. ``->`` is not a redirection. A ``#``
at the start of a word starts a comment.
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from ..commands.contract import UsageError

_OPERATORS = (">>", ">!", ">", "|", ";")


class Mode(Enum):
    """What a redirection does with a file that exists."""

    #: It is an error.
    NEW = ">"
    REPLACE = ">!"
    APPEND = ">>"


class Redirection(NamedTuple):
    """A file in place of the screen."""

    path: str
    mode: Mode


class Pipeline(NamedTuple):
    """A command, and where its output goes."""

    #: The words of the command, then those of each filter.
    stages: Sequence[Sequence[str]]
    redirection: Redirection | None = None
    #: What follows a "!": a line for the system's shell.
    escape: str | None = None


class Token(NamedTuple):
    """A word or an operator."""

    text: str
    is_operator: bool
    #: Where it starts in the line.
    start: int
    #: Whether the line ends within quotes that this word opened.
    is_open: bool = False


def tokens(line: str) -> Iterator[Token]:
    """Splits a line; never fails."""
    at = 0
    while at < len(line):
        if line[at].isspace():
            at += 1
            continue
        if line[at] == "#":
            return
        operator = next((text for text in _OPERATORS if line.startswith(text, at)), None)
        if operator is not None:
            yield Token(operator, True, at)
            at += len(operator)
            continue
        start = at
        text, at, is_open = _word(line, at)
        yield Token(text, False, start, is_open)


def _word(line: str, at: int) -> tuple[str, int, bool]:
    """The word that starts at ``at``, its end, and whether quotes in it are open."""
    text: list[str] = []
    quote = ""
    while at < len(line):
        char = line[at]
        if char == "\\" and quote != "'":
            at += 1
            if at == len(line):
                return "".join(text), at, True
            if quote and line[at] not in '"\\':
                text.append("\\")
            text.append(line[at])
        elif quote:
            if char == quote:
                quote = ""
            else:
                text.append(char)
        elif char in "'\"":
            quote = char
        elif char.isspace() or char in "|;" or (char == ">" and line[at - 1] != "-"):
            break
        else:
            text.append(char)
        at += 1
    return "".join(text), at, bool(quote)


def parse(line: str) -> list[Pipeline]:
    """The pipelines of a line. UsageError if it does not have the form above."""
    if "\0" in line:
        raise UsageError("the line has a NUL, which no argument can have")
    if line.lstrip().startswith("!"):
        return [Pipeline([], escape=line.lstrip()[1:].strip())]
    found: list[Pipeline] = []
    part: list[Token] = []
    for token in tokens(line):
        if token.is_open:
            raise UsageError("the line ends within quotes, or after a backslash")
        if token.is_operator and token.text == ";":
            found += _pipeline(part)
            part = []
        else:
            part.append(token)
    found += _pipeline(part)
    return found


def _pipeline(part: Sequence[Token]) -> list[Pipeline]:
    """The pipeline of these tokens; none without a token."""
    if not part:
        return []
    stages: list[list[str]] = [[]]
    redirection: Redirection | None = None
    rest = iter(part)
    for token in rest:
        if redirection is not None:
            raise UsageError(f"{token.text!r} after the file of a redirection")
        if not token.is_operator:
            stages[-1].append(token.text)
        elif token.text == "|":
            stages.append([])
        else:
            file = next(rest, None)
            if file is None or file.is_operator or not file.text:
                raise UsageError(f"no file after {token.text}")
            redirection = Redirection(file.text, Mode(token.text))
    for i, stage in enumerate(stages):
        if not stage:
            where = "before a |" if i + 1 < len(stages) else "after a |" if i else "before a >"
            raise UsageError(f"no command {where}")
    return [Pipeline(stages, redirection)]
