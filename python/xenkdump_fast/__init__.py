"""Reads Linux and Xen kernel crash dumps, and every PV domain in them.

```python
import xenkdump_fast as xk

dump = xk.open("vmcore")
dom0 = dump.domain(0, vmlinux="vmlinux")
kernel = dom0.kernel
for task in kernel.tasks():
    print(task.pid, task.comm)
    for frame in kernel.backtrace(task).frames:
        print(f"  {frame.pc:#x} {frame.symbol}")
print(dom0.virtual.read(kernel.symbols["linux_banner"], 64))
```
"""

from importlib import import_module

TYPE_CHECKING = False  # that of typing, which takes long to import
if TYPE_CHECKING:
    from drgn import Program

    from ._native import AbsentError, DumpError, MemoryFault
    from .linux.tasks import Task
    from .mismatch import MismatchError
    from .session import Domain, Dump, open
    from .session.bare import AlteredWord, BareMachine, CpuState
    from .status import Status

#: The modules of the public names. Each is imported when a name of it is first used: the start of a
#: command would otherwise take twice as long.
_MODULES = {
    "AbsentError": "_native",
    "AlteredWord": "session.bare",
    "BareMachine": "session.bare",
    "CpuState": "session.bare",
    "Domain": "session",
    "Dump": "session",
    "DumpError": "_native",
    "MemoryFault": "_native",
    "MismatchError": "mismatch",
    "Status": "status",
    "Task": "linux.tasks",
    "open": "session",
}


if not TYPE_CHECKING:  # where any name would be one of the package

    def __getattr__(name: str) -> object:
        """A public name, on first use (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def drgn_program(domain: "Domain") -> "Program":
    """The domain as a ``drgn.Program``, with its types, symbols, threads and memory.

    It is valid as long as the dump is open. Raises ImportError if drgn is not installed
    (``pip install 'xenkdump_fast[drgn]'``), AbsentError if the kernel cannot be found.
    """
    from .bridges.drgn import program_of

    return program_of(domain)


__all__ = [
    "AbsentError",
    "AlteredWord",
    "BareMachine",
    "CpuState",
    "Domain",
    "Dump",
    "DumpError",
    "MemoryFault",
    "MismatchError",
    "Status",
    "Task",
    "drgn_program",
    "open",
]
