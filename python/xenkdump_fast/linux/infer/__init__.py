"""Layouts of a kernel without type information, inferred from its memory.

Nothing is taken from a table of versions: each offset is the one at which the memory keeps an
invariant that only that member can keep, on every task (or module, or run queue) that there is. A
member of which that cannot be said is not inferred at all.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

from ..._native import AbsentError
from ..kernel import Kernel
from . import clock, frame, memory, module, runqueue, task
from .inferred import Inferences, Inferred, Struct
from .sample import Sample


class Inference:
    """Infers the layout of a struct when it is first asked for."""

    def __init__(self, kernel: Kernel, why: str) -> None:
        self._kernel = kernel
        self._why = why
        self._structs: dict[str, Struct] = {}

    def __contains__(self, struct: str) -> bool:
        return bool(self._struct(struct))

    def member(self, path: str) -> Inferred:
        """The member at ``path``; AbsentError where memory does not tell."""
        struct, _, rest = path.partition(".")
        found = self._struct(struct).get(rest)
        if found is None or not rest:
            raise AbsentError(f"{self._why}; the place of {path} cannot be inferred")
        return found

    def sizeof(self, struct: str) -> int:
        """The size of a struct; AbsentError where memory does not tell."""
        found = self._struct(struct).get("")
        if found is None:
            raise AbsentError(f"{self._why}; the size of {struct} cannot be inferred")
        return found.size

    @cached_property
    def sample(self) -> Sample:
        """The tasks that the invariants are held against."""
        return Sample(self._kernel)

    def _struct(self, name: str) -> Struct:
        found = self._structs.get(name)
        if found is None:
            infer = INFERRERS.get(name)
            try:
                found = {} if infer is None else infer(self._kernel, self)
            except AbsentError:
                found = {}
            self._structs[name] = found
            if found:
                self._kernel.warn(
                    f"{self._why}: layouts were inferred from the dump's memory, by what must hold "
                    "in it"
                )
        return found


#: By the struct that each infers.
INFERRERS: Mapping[str, Callable[[Kernel, Inferences], Struct]] = {
    "task_struct": task.task_struct,
    "thread_info": task.thread_info,
    "signal_struct": task.signal_struct,
    "inactive_task_frame": frame.inactive_task_frame,
    "rq": runqueue.rq,
    "mm_struct": memory.mm_struct,
    "pglist_data": memory.pglist_data,
    "timekeeper": clock.timekeeper,
    "uts_namespace": clock.uts_namespace,
    "module": module.module,
    "mod_kallsyms": module.mod_kallsyms,
}
