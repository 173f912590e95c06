"""What short commands need of ``contextlib``, which takes a millisecond to import."""

from types import TracebackType


class suppress:  # noqa: N801 - as in contextlib
    """Ends the ``with`` block, without an error, at an exception of these types."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return isinstance(error, self._kinds)
