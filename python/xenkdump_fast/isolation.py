"""One broken item out of many: reported as a warning, and the rest goes on."""

from collections.abc import Callable
from types import TracebackType

from ._native import DumpError

#: Exceptions that are raised on.
_RAISED = (DumpError, MemoryError, OSError)
#: Errors that are not raised for a damaged dump are raised on, not reported: the tests set this.
strict = False


class isolated:  # noqa: N801 - used like contextlib.suppress
    """Within it an exception becomes a warning about ``what``, and ends only the ``with`` block.

    An error of the ``expected`` type says what the dump lacks; others of ``DumpError`` concern more
    than this item, as lack of memory and failing files do, and are raised on. Any other exception
    is a bug in this package: one damaged task should not hide the others, so that it becomes a
    warning too, which names the exception.
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
