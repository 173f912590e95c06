"""Isolates one broken item among many: it gets a warning, and the others are processed."""

from collections.abc import Callable
from types import TracebackType

from ._native import DumpError

#: Exceptions that are passed on.
_RAISED = (DumpError, MemoryError, OSError)
#: Whether exceptions that are bugs are passed on, not reported. Set by the tests.
strict = False


class isolated:  # noqa: N801 - used like contextlib.suppress
    """Within it an exception becomes a warning about ``what``, and ends only the ``with`` block.

    An error of the ``expected`` type is caused by damage. Other errors of ``DumpError``, lack of
    memory and failing files concern more than this item and are passed on. Any other exception is a
    bug in this package. It becomes a warning that names the exception: one damaged task should not
    hide the others.
    """

    __slots__ = ("_expected", "_warn", "_what")

    def __init__(
        self, what: str, warn: Callable[[str], None], expected: type[DumpError] = DumpError
    ) -> None:
        self._what = what
        self._warn = warn
        self._expected = expected

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, self._expected):
            self._warn(f"{self._what}: {error}")
            return True
        if strict or isinstance(error, _RAISED) or not isinstance(error, Exception):
            return False
        self._warn(f"{self._what}: internal error: {type(error).__name__}: {error}")
        return True
