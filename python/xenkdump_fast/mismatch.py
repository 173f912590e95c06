"""The error for symbols of another build than that of the dump."""

from ._native import AbsentError


class MismatchError(AbsentError):
    """The vmlinux or xen-syms is not the build that the dump holds."""

    def __init__(self, problem: str, *, can_force: bool = True) -> None:
        super().__init__(problem)
        #: What differs, without what to do.
        self.problem = problem
        #: Whether ``force=True`` accepts the file.
        self.can_force = can_force

    def __str__(self) -> str:
        return self.with_remedy("force=True")

    def with_remedy(self, force: str) -> str:
        """The message; ``force`` is what accepts the file, as the reader writes it."""
        return f"{self.problem} ({force} continues anyway)" if self.can_force else self.problem
