"""Many warnings of one kind as a few: a cut dump may give cause for one a task."""

import re
from collections.abc import Iterable

#: So many of a kind are told in full.
FEW = 3
#: So many texts are known again when they come a second time; a further one is counted each time
#: it comes. A kernel of 100000 tasks, none of which can be read, gives as many.
MAX_KNOWN = 1 << 18
#: So many kinds are told apart: names that a text holds make kinds of their own, as those of
#: modules do, of which no kernel has had so many.
MAX_KINDS = 1 << 12
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")
_MORE = re.compile(r"and ([0-9]{1,18}) more like this: ", re.ASCII)


class _Kind:
    """The first texts of a kind, and how many there were."""

    __slots__ = ("count", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.count = 0


class Warnings:
    """Warnings as they come, each once, no matter how many: of a kind a few are kept."""

    __slots__ = ("_kinds", "_known")

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        #: Hashes of the texts that were met.
        self._known: set[int] = set()

    def add(self, text: str) -> None:
        """Notes a warning, if it is a new one."""
        known = hash(text)
        if known in self._known:
            return
        if len(self._known) < MAX_KNOWN:
            self._known.add(known)
        # What was folded before stands for as many as it says.
        more = _MORE.match(text)
        first = text[more.end() :] if more else text
        # What stands behind the first colon is the reason, which may be a different one each time.
        name = _NUMBER.sub("", first.split(": ")[0])
        if name not in self._kinds and len(self._kinds) >= MAX_KINDS:
            name = ""
        kind = self._kinds.setdefault(name, _Kind())
        kind.count += int(more[1]) if more else 1
        if len(kind.texts) <= FEW:
            kind.texts.append(first)

    def told(self) -> list[str]:
        """Of those that differ in numbers alone the first few, and how many more there were."""
        told = []
        for kind in self._kinds.values():
            told += kind.texts[:FEW]
            if kind.count > FEW:
                told.append(f"and {kind.count - FEW} more like this: {kind.texts[-1]}")
        return told


def fold(warnings: Iterable[str]) -> list[str]:
    """Each warning once; of those that differ in numbers alone the first few, and how many more.

    What was folded already may be among them, as a kernel's warnings are.
    """
    found = Warnings()
    for warning in warnings:
        found.add(warning)
    return found.told()
