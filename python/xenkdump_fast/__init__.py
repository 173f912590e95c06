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

from typing import TYPE_CHECKING

from ._native import AbsentError, DumpError, MemoryFault
from .linux.tasks import Task
from .session import AlteredWord, BareMachine, CpuState, Domain, Dump, MismatchError, open
from .status import Status

if TYPE_CHECKING:
    from drgn import Program


def drgn_program(domain: Domain) -> "Program":
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
