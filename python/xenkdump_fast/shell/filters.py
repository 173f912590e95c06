"""The filters after a ``|`` that need no other program: grep, head, tail, wc, sort and uniq."""

import argparse
import io
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from .. import parsing
from ..commands.contract import UsageError
from ..output.writer import Stream
from .parser import ShellParser


class FinishedError(BrokenPipeError):
    """What follows in the pipeline takes no more: the command ends, as by SIGPIPE."""


class Filter:
    """A stream that passes on what becomes of the lines that are written to it."""

    def __init__(self, following: Stream) -> None:
        self._following = following
        self._rest: list[str] = []

    def write(self, text: str, /) -> None:
        """Processes the lines that are complete."""
        first, *others = text.split("\n")
        self._rest.append(first)
        for other in others:
            line, self._rest = "".join(self._rest), []
            self.line(line)
            self._rest = [other]

    def flush(self) -> None:
        """Passes on what has been written."""
        self._following.flush()

    def close(self) -> None:
        """Processes the end of the input."""
        rest, self._rest = "".join(self._rest), []
        with suppress(FinishedError):
            if rest:
                self.line(rest)
            self.end()

    @property
    def buffer(self) -> io.BufferedIOBase:
        """Filters have lines of text only."""
        raise UsageError("bytes cannot be filtered: redirect them to a file")

    def line(self, text: str) -> None:
        """Processes a line."""
        raise NotImplementedError

    def end(self) -> None:
        """Processes the end, after the last line."""

    def put(self, text: str) -> None:
        """Passes on a line."""
        self._following.write(f"{text}\n")


def _count(text: str) -> int:
    found = parsing.number(text)
    if found is None or found < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return min(found, sys.maxsize)  # what a deque can have


class Grep(Filter):
    """``grep``: lines that a regular expression, in Python's syntax, matches."""

    def __init__(self, options: argparse.Namespace, following: Stream) -> None:
        super().__init__(following)
        text = re.escape(options.pattern) if options.fixed else options.pattern
        if options.word:
            text = rf"\b(?:{text})\b"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the syntax of versions to come
                self._pattern = re.compile(text, re.IGNORECASE if options.ignore_case else 0)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"grep: {options.pattern!r}: {error}") from None
        self._options = options
        context = options.context or 0
        self._after: int = context if options.after is None else options.after
        self._before: deque[tuple[int, str]] = deque(
            maxlen=context if options.before is None else options.before
        )
        self._number = 0
        self._found = 0
        #: Lines of context that are still to come.
        self._due = 0
        self._last = 0

    def line(self, text: str) -> None:
        """Passes on a line that matches, and those around it."""
        options = self._options
        self._number += 1
        if (self._pattern.search(text) is None) is not options.invert:
            if self._due:
                self._due -= 1
                self._show(self._number, text, "-")
            else:
                self._before.append((self._number, text))
            return
        self._found += 1
        if not options.count:
            first = self._before[0][0] if self._before else self._number
            if (self._after or self._before.maxlen) and 0 < self._last < first - 1:
                self.put("--")
            for number, before in self._before:
                self._show(number, before, "-")
            self._before.clear()
            if options.only:
                for match in self._pattern.finditer(text):
                    self._show(self._number, match[0], ":")
            else:
                self._show(self._number, text, ":")
            self._due = self._after
        if options.most is not None and self._found >= options.most:
            raise FinishedError

    def _show(self, number: int, text: str, mark: str) -> None:
        self._last = number
        self.put(f"{number}{mark}{text}" if self._options.number else text)

    def end(self) -> None:
        """Passes on the count, if that was asked for."""
        if self._options.count:
            self.put(str(self._found))


def _grep(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("pattern", metavar="PATTERN", help="a regular expression")
    add("-i", "--ignore-case", action="store_true", help="upper and lower case are the same")
    add("-v", "--invert-match", dest="invert", action="store_true", help="lines that do not match")
    add("-c", "--count", action="store_true", help="the number of lines")
    add("-n", "--line-number", dest="number", action="store_true", help="with line numbers")
    add("-o", "--only-matching", dest="only", action="store_true", help="what matches alone")
    add("-w", "--word-regexp", dest="word", action="store_true", help="whole words")
    add("-F", "--fixed-strings", dest="fixed", action="store_true", help="PATTERN is plain text")
    add("-E", action="store_true", help="no effect: the syntax is that of Python in any case")
    add("-m", type=_count, dest="most", metavar="N", help="the first N lines")
    add("-A", type=_count, dest="after", metavar="N", help="with N lines after each")
    add("-B", type=_count, dest="before", metavar="N", help="with N lines before each")
    add("-C", type=_count, dest="context", metavar="N", help="with N lines before and after each")


class Head(Filter):
    """``head``: the first lines."""

    def __init__(self, options: argparse.Namespace, following: Stream) -> None:
        super().__init__(following)
        self._left: int = options.lines

    def line(self, text: str) -> None:
        """Passes on the first lines, then ends the command."""
        if self._left > 0:
            self._left -= 1
            self.put(text)
        if self._left == 0:
            raise FinishedError


class Tail(Filter):
    """``tail``: the last lines."""

    def __init__(self, options: argparse.Namespace, following: Stream) -> None:
        super().__init__(following)
        self._lines: deque[str] = deque(maxlen=options.lines)

    def line(self, text: str) -> None:
        """Keeps the line."""
        self._lines.append(text)

    def end(self) -> None:
        """Passes on the last lines."""
        for text in self._lines:
            self.put(text)


def _lines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--lines", type=_count, default=10, metavar="N", help="how many (default: 10)"
    )


class Count(Filter):
    """``wc``: the numbers of lines, words and bytes."""

    def __init__(self, options: argparse.Namespace, following: Stream) -> None:
        super().__init__(following)
        self._options = options
        self._counts = [0, 0, 0]

    def line(self, text: str) -> None:
        """Counts the line."""
        size = len(text.encode("utf-8", "surrogatepass")) + 1
        for i, more in enumerate((1, len(text.split()), size)):
            self._counts[i] += more

    def end(self) -> None:
        """Passes on the counts."""
        chosen = (self._options.lines, self._options.words, self._options.bytes)
        shown = [n for n, is_chosen in zip(self._counts, chosen, strict=True) if is_chosen]
        if len(shown) == 1:
            self.put(str(shown[0]))
        else:
            self.put(" ".join(f"{n:7}" for n in shown or self._counts))


def _wc(parser: argparse.ArgumentParser) -> None:
    for letter, name in (("l", "lines"), ("w", "words"), ("c", "bytes")):
        parser.add_argument(f"-{letter}", f"--{name}", action="store_true", help=f"the {name}")


class Sort(Filter):
    """``sort``: the lines in order."""

    def __init__(self, options: argparse.Namespace, following: Stream) -> None:
        super().__init__(following)
        self._options = options
        self._lines: list[str] = []

    def line(self, text: str) -> None:
        """Keeps the line."""
        self._lines.append(text)

    def end(self) -> None:
        """Passes on the lines."""
        options = self._options
        found: Iterable[str] = dict.fromkeys(self._lines) if options.unique else self._lines
        for text in sorted(found, key=self._key, reverse=options.reverse):
            self.put(text)

    def _key(self, line: str) -> tuple[float, str]:
        field = line
        if self._options.key is not None:
            words = line.split()
            at = self._options.key - 1
            field = words[at] if 0 <= at < len(words) else ""
        if not self._options.numeric:
            return 0, field
        number = re.match(r"\s*(-?[0-9]{1,300}(?:\.[0-9]{1,300})?)", field, re.ASCII)
        return (float(number[1]) if number else 0, line)


def _sort(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-r", "--reverse", action="store_true", help="in descending order")
    add("-n", "--numeric", action="store_true", help="by numbers")
    add("-k", "--key", type=_count, metavar="N", help="by the Nth word")
    add("-u", "--unique", action="store_true", help="each line once")


class Unique(Filter):
    """``uniq``: equal lines that follow one another, once."""

    def __init__(self, options: argparse.Namespace, following: Stream) -> None:
        super().__init__(following)
        self._options = options
        self._last: str | None = None
        self._count = 0

    def line(self, text: str) -> None:
        """Passes on the lines before if this one is another."""
        if text != self._last:
            self.end()
            self._last, self._count = text, 0
        self._count += 1

    def end(self) -> None:
        """Passes on the lines before."""
        if self._last is not None:
            self.put(f"{self._count:7} {self._last}" if self._options.count else self._last)


def _uniq(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--count", action="store_true", help="with the number of each")


_Make = Callable[[argparse.Namespace, Stream], Filter]
#: By name: what it does, its options, its class.
_TABLE: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], _Make]] = {
    "grep": ("the lines that match a regular expression of Python", _grep, Grep),
    "head": ("the first lines", _lines, Head),
    "tail": ("the last lines", _lines, Tail),
    "wc": ("the numbers of lines, words and bytes", _wc, Count),
    "sort": ("the lines in order", _sort, Sort),
    "uniq": ("equal lines that follow one another, once", _uniq, Unique),
}
_ALIASES = {"egrep": ["grep"], "fgrep": ["grep", "-F"]}
#: The names of all filters, with what they do.
NAMES = {name: summary for name, (summary, _, _) in _TABLE.items()}
#: Names that may follow a |, besides the pager.
KNOWN = {*_TABLE, *_ALIASES}


def parser_of(name: str) -> ShellParser:
    """The parser of a filter."""
    summary, add_options, _ = _TABLE[name]
    parser = ShellParser(prog=name, description=summary)
    add_options(parser)
    return parser


def make(words: Sequence[str], following: Stream) -> Filter:
    """The filter that ``words`` ask for. UsageError if its arguments are wrong."""
    name, *rest = _expanded(words)
    return _TABLE[name][2](parser_of(name).parse_args(rest), following)


def _expanded(words: Sequence[str]) -> Iterator[str]:
    name, *rest = words
    yield from _ALIASES.get(name, [name])
    for word in rest:
        # head -3
        is_count = name in ("head", "tail") and re.fullmatch("-[0-9]+", word, re.ASCII)
        yield f"-n{word[1:]}" if is_count else word
