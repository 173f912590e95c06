"""Checks the types of arguments of the Python API, so that an error names the argument."""

import os
from collections.abc import Iterable
from operator import index


def path(name: str, given: object) -> str:
    """A path. Raises TypeError for anything else, also for bytes."""
    if isinstance(given, str | os.PathLike):
        found = os.fspath(given)
        if isinstance(found, str):
            return found
    raise _wrong(name, "a path is needed (a str or an os.PathLike)", given)


def integer(name: str, given: object) -> int:
    """An int, or what can be used as one, such as numpy's integers. Raises TypeError."""
    try:
        return index(given)  # type: ignore[arg-type]
    except TypeError:
        raise _wrong(name, "an int is needed", given) from None


def text(name: str, given: object) -> str:
    """A str. Raises TypeError."""
    if not isinstance(given, str):
        raise _wrong(name, "a str is needed", given)
    return given


def texts(name: str, given: object) -> tuple[str, ...]:
    """Several str. Raises TypeError, also for a single str."""
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (None,)
    if not all(isinstance(one, str) for one in found):
        raise _wrong(name, "a sequence of str is needed", given)
    return found


def task(given: object) -> None:
    """Raises TypeError if the argument ``task`` is not a Task."""
    if not hasattr(given, "address"):
        raise _wrong("task", "a Task is needed", given)


def _wrong(name: str, needed: str, given: object) -> TypeError:
    return TypeError(f"{name}: {needed}, not {type(given).__name__}")
