"""The types of variables, from C syntax."""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..._native import AbsentError
from .isf_types import Descriptor, IsfTypes

if TYPE_CHECKING:
    from ..._native import Type, TypeGraph

_QUALIFIER = re.compile(r"\b(?:const|volatile)\b ?")
_DECLARATION = re.compile(r"(?P<base>[\w ]*\w) ?(?P<pointers>\**) ?(?P<array>\[\d*\])?")
#: ``struct { int first; struct foo second; }``
_ANONYMOUS = re.compile(r"struct \{ (.*); \}")


class Declarations:
    """Descriptors of types in C syntax: ``struct page *``, ``unsigned long []``."""

    def __init__(self, graph: "TypeGraph", types: IsfTypes, word: int) -> None:
        self._graph = graph
        self._types = types
        self._word = word

    def describe(self, text: str, size: int) -> Descriptor | None:
        """The descriptor of a variable of ``size`` bytes; None if a type is not known.

        The size gives the number of elements of an array without one.
        """
        members = _ANONYMOUS.fullmatch(text)
        if members is not None:
            return self._anonymous([part.rpartition(" ")[2] for part in members[1].split("; ")])
        found = _DECLARATION.fullmatch(_QUALIFIER.sub("", text).strip())
        if found is None:
            return None
        base = None if found["base"] == "void" else self._find(found["base"])
        if base is None and found["base"] != "void":
            return None
        described = self._types.describe(base)
        for _ in found["pointers"]:
            described = {"kind": "pointer", "subtype": described}
        if found["array"] is None:
            return described
        element = self._word if found["pointers"] else base.sizeof() if base is not None else None
        count = int(found["array"][1:-1] or (size // element if element else 0))
        return {"kind": "array", "count": count, "subtype": described}

    def _find(self, name: str) -> "Type | None":
        with suppress(AbsentError):
            return self._graph.find(name)
        return None

    def _anonymous(self, members: Sequence[str]) -> Descriptor | None:
        """The descriptor of the only anonymous struct with exactly these members."""
        found = [
            candidate
            for candidate in self._graph
            if candidate.kind == "struct"
            and not candidate.name
            and [member.name for member in candidate.members] == list(members)
        ]
        return self._types.describe(found[0]) if len(found) == 1 else None
