"""Layouts of a kernel without type information, inferred from its memory.

There is no table of versions: a member is found by a property that only it has, in every task (or
module, or run queue) of the dump. A member without such a property is not inferred.
"""

from collections.abc import Callable, Mapping
from functools import cached_property

from ..._native import AbsentError
from ...budget import BudgetExceededError
from ..kernel import Kernel
from . import clock, frame, memory, module, runqueue, task
from .inferred import Inferences, Inferred, Struct
from .task_sample import TaskSample


class Inference:
    """Infers the layout of a struct when it is first used."""

    def __init__(self, kernel: Kernel, why: str) -> None:
        self._kernel = kernel
        self._why = why
        self._structs: dict[str, Struct] = {}

    def __contains__(self, struct: str) -> bool:
        return bool(self._struct(struct))

    def member(self, path: str) -> Inferred:
        """The member at ``path``; AbsentError if it cannot be inferred."""
        struct, _, rest = path.partition(".")
        found = self._struct(struct).get(rest)
        if found is None or not rest:
            raise self._absent(f"the offset of {path}")
        return found

    def sizeof(self, struct: str) -> int:
        """The size of a struct; AbsentError if it cannot be inferred."""
        found = self._struct(struct).get("")
        if found is None:
            raise self._absent(f"the size of {struct}")
        return found.size

    def _absent(self, what: str) -> AbsentError:
        remedy = self._kernel.types_remedy
        return AbsentError(f"{self._why}; {what} cannot be inferred{remedy}")

    @cached_property
    def sample(self) -> TaskSample:
        """The tasks on which invariants are checked."""
        return TaskSample(self._kernel)

    def _struct(self, name: str) -> Struct:
        found = self._structs.get(name)
        if found is None:
            infer = INFERRERS.get(name)
            try:
                found = {} if infer is None else infer(self._kernel, self)
            except BudgetExceededError as error:
                self._kernel.warn(f"the layout of {name} cannot be inferred: {error}")
                found = {}
            except AbsentError:
                found = {}
            self._structs[name] = found
            if found:
                self._kernel.warn(
                    f"{self._why}: struct layouts were inferred from memory; a vmlinux with type "
                    "information is more reliable"
                )
        return found


#: The functions that infer layouts, by struct.
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
    "module_memory": module.module_memory,
    "mod_kallsyms": module.mod_kallsyms,
}
