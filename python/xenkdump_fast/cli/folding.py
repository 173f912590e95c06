"""Many warnings of one kind as a few: a cut dump may give cause for one a task."""

import re
from collections.abc import Iterable

#: So many of a kind are told in full.
FEW = 3
_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")


def fold(warnings: Iterable[str]) -> list[str]:
    """Each warning once; of those that differ in numbers alone the first few, and how many more."""
    kinds: dict[str, list[str]] = {}
    for warning in dict.fromkeys(warnings):
        # What stands behind the first colon is the reason, which may be a different one each time.
        kinds.setdefault(_NUMBER.sub("", warning.split(": ")[0]), []).append(warning)
    told = []
    for alike in kinds.values():
        told += alike[:FEW]
        if len(alike) > FEW:
            told.append(f"and {len(alike) - FEW} more like this: {alike[FEW]}")
    return told
