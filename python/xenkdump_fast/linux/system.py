"""A kernel with its CPUs, tasks and stacks."""

from collections.abc import Callable, Sequence
from functools import cached_property

from .. import api_arguments
from .._native import AddressSpace, Image, Unwinder
from .._typing import TYPE_CHECKING
from . import backtrace, cpus, modules, tasks
from .backtrace import Start, Trace
from .boot.locate import Location
from .cpus import VcpuContext
from .kernel import Kernel
from .layouts import Untyped
from .stacks import SavedRegisters
from .tasks import Task

if TYPE_CHECKING:
    import numpy as np

    from .._native import Types


class Linux(Kernel):
    """A kernel with its CPUs, tasks and stacks.

    ``vcpus`` returns the registers of its CPUs that are in the dump; it is called when they are
    first needed. ``methods`` restricts the unwinder to these methods.
    """

    def __init__(
        self,
        image: Image,
        location: Location,
        virtual: AddressSpace,
        memory_held: int,
        vcpus: Callable[[], Sequence[VcpuContext]] = tuple,
        methods: Sequence[str] | None = None,
    ) -> None:
        super().__init__(image, location, virtual, memory_held)
        self._vcpus = vcpus
        self._methods = methods

    def _untyped(self, why: str) -> Untyped:
        from .infer import Inference  # rarely needed

        return Inference(self, why)

    def tasks(self) -> Sequence[Task]:
        """Returns every task: idle tasks by CPU, then the others by pid."""
        from . import task_table  # not needed for backtraces of running tasks

        return task_table.read(self)

    @cached_property
    def active(self) -> dict[int, Task]:
        """The task that each CPU was running, by CPU number."""
        return tasks.running(self)

    def backtrace(self, task: Task) -> Trace:
        """Unwinds a task's stack; a broken one gives an incomplete trace."""
        api_arguments.task(task)
        return self.tracer([task])(task)

    def tracer(self, tasks: Sequence[Task]) -> Callable[[Task], Trace]:
        """Returns ``backtrace`` for these tasks, whose saved registers are read together."""
        saved = SavedRegisters(self, tasks)

        def trace(task: Task) -> Trace:
            context = self._contexts.get(task.address)
            return backtrace.trace(self, self.unwinder, task, context, saved)

        return trace

    def starter(self, tasks: Sequence[Task]) -> Callable[[Task], Start]:
        """Returns a function that gives the registers from which a task's stack is unwound.

        It raises NoStartError for a task without any.
        """
        saved = SavedRegisters(self, tasks)

        def start(task: Task) -> Start:
            return backtrace.start(self, task, self._contexts.get(task.address), saved)

        return start

    def module_types(self, name: str) -> "Types":
        """Returns the types of a module by its BTF, with those of the kernel, which it continues.

        AbsentError if there is no such module, or no BTF of it: the kernel has it since 5.11, with
        ``CONFIG_DEBUG_INFO_BTF_MODULES``.
        """
        from .module_types import types_of  # rarely needed

        return types_of(self, name)

    def struct_dtype(self, struct: str, *members: str) -> "np.dtype[np.void]":
        """Returns a numpy dtype with these members of a struct, for ``read_struct_many``.

        A member may be a path, as ``se.exec_start``; it is the name of the field. Numbers and
        pointers are numbers, arrays of char bytes up to the NULs at their end, other arrays have a
        shape, and structs are opaque bytes. AbsentError if a type is not known.
        """
        api_arguments.text("struct", struct)
        api_arguments.texts("members", members)
        from .typed import dtypes  # not needed by most commands

        return dtypes.of(self, struct, members)

    @cached_property
    def contexts(self) -> dict[int, VcpuContext]:
        """The registers of each CPU that are in the dump, by CPU number."""
        return cpus.assign(self, self._vcpus(), self.active)

    @cached_property
    def _contexts(self) -> dict[int, VcpuContext]:
        """The registers of the running tasks, by address of the task."""
        contexts = self.contexts
        return {task.address: contexts[cpu] for cpu, task in self.active.items() if cpu in contexts}

    @cached_property
    def unwinder(self) -> Unwinder:
        """The unwinder of this kernel and its modules."""
        unwinder = Unwinder(
            self.image,
            self.code,
            self.virtual,
            types=self.types.native,
            version=self.release,
            methods=self._methods,
        )
        modules.load(self, unwinder)
        for text in unwinder.warnings:
            self.warn(text)
        return unwinder
