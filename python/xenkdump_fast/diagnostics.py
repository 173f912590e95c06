"""Deduplicates warnings: a truncated dump may cause one for each task."""

import re
from collections.abc import Iterable

from ._typing import Self
from .limits import MAX_KNOWN_WARNINGS, MAX_SAME_WARNINGS, MAX_WARNING_KINDS

_NUMBER = r"0x[0-9a-f]+|[0-9]+"
_MORE = r"and ([0-9]{1,18}) more like this: "


class Unique(list[str]):
    """Warnings about something that many commands read: each text once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[str] = set()

    def append(self, text: str) -> None:
        """Adds a warning."""
        self.extend((text,))

    def extend(self, texts: Iterable[str]) -> None:
        """Adds warnings."""
        for text in texts:
            if text not in self._known:
                self._known.add(text)
                super().append(text)

    def __iadd__(self, texts: Iterable[str]) -> Self:  # type: ignore[misc,override]
        self.extend(texts)
        return self


class _Kind:
    """The first texts of a kind, and the number of all."""

    __slots__ = ("count", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.count = 0


class Warnings:
    """Deduplicated warnings: the first few of those that differ only in numbers, and a count."""

    __slots__ = ("_kinds", "_known")

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        #: Hashes of texts that were added.
        self._known: set[int] = set()

    def add(self, text: str) -> None:
        """Adds a warning, unless it is a repetition."""
        known = hash(text)
        if known in self._known:
            return
        if len(self._known) < MAX_KNOWN_WARNINGS:
            self._known.add(known)
        # A text that was deduplicated before has a count.
        more = re.match(_MORE, text)
        first = text[more.end() :] if more else text
        # After the first colon is the reason, which may differ each time.
        name = re.sub(_NUMBER, "", first.split(": ")[0])
        if name not in self._kinds and len(self._kinds) >= MAX_WARNING_KINDS:
            name = ""
        kind = self._kinds.setdefault(name, _Kind())
        kind.count += int(more[1]) if more else 1
        if len(kind.texts) <= MAX_SAME_WARNINGS:
            kind.texts.append(first)

    def texts(self) -> list[str]:
        """The first warnings of each kind, and the number of further ones."""
        found = []
        for kind in self._kinds.values():
            found += kind.texts[:MAX_SAME_WARNINGS]
            if kind.count > MAX_SAME_WARNINGS:
                more = kind.count - MAX_SAME_WARNINGS
                found.append(f"and {more} more like this: {kind.texts[-1]}")
        return found


def deduplicated(warnings: Iterable[str]) -> list[str]:
    """The warnings as ``Warnings`` reports them. Some may be deduplicated already."""
    found = Warnings()
    for warning in warnings:
        found.add(warning)
    return found.texts()


def kind(text: str) -> str:
    """A key for a warning. For "and 3 more like this: ..." it is the text without numbers."""
    more = re.match(_MORE, text)
    if more is None:
        return text
    name = text[more.end() :].partition(": ")[0]
    return f"{re.sub(_NUMBER, '', name)} ..."
