"""Names that a mistyped one may stand for.

They are searched for when a message is made, not when an error is raised: many errors are caught.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import islice

from ._native import AbsentError
from .limits import MAX_SUGGESTION_NAME, MAX_SUGGESTION_NAMES, MAX_SUGGESTIONS_COMPARED

#: How many names a message has.
_SHOWN = 3
#: How much of two names has to be equal, as difflib measures it.
_SIMILAR = 0.7
#: Characters by which the lengths of two names may differ.
_LENGTHS = 3


def close(word: str, known: Iterable[str]) -> list[str]:
    """The most similar names, the best first: those of about its length with its first letter."""
    if not 1 < len(word) <= MAX_SUGGESTION_NAME:
        return []
    from difflib import get_close_matches  # only for errors

    lowered = word.lower()
    lengths = range(len(word) - _LENGTHS, len(word) + _LENGTHS + 1)
    start = lowered[0]
    candidates = {
        name.lower(): name
        for name in islice(known, MAX_SUGGESTION_NAMES)
        if len(name) in lengths and name[:1].lower() == start
    }
    compared = list(islice(candidates, MAX_SUGGESTIONS_COMPARED))
    return [candidates[name] for name in get_close_matches(lowered, compared, _SHOWN, _SIMILAR)]


def question(word: str, known: Iterable[str]) -> str | None:
    """Asks whether a similar name was meant; None if no name is similar."""
    found = close(word, known)
    return f"did you mean {', '.join(found)}?" if found else None


class UnknownNameError(AbsentError):
    """There is nothing of a name; the message has similar ones."""

    def __init__(self, text: str, name: str, known: Callable[[], Iterable[str]]) -> None:
        super().__init__(text)
        self._text = text
        self._name = name
        self._known = known

    def __reduce__(self) -> tuple[type[AbsentError], tuple[str]]:
        return AbsentError, (str(self),)

    @cached_property
    def _message(self) -> str:
        try:
            asked = question(self._name, self._known())
        except AbsentError:
            asked = None
        return self._text if asked is None else f"{self._text}; {asked}"

    def __str__(self) -> str:
        return self._message
