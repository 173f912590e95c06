"""Opens a domain as a program of drgn."""

from contextlib import suppress

from drgn import Object, Program

from ..._native import AbsentError, MemoryFault
from ...linux.kernel import Kernel
from ...linux.system import Linux
from ...session import Domain
from . import core_notes, memory, modules, objects, symbols, types, vmcoreinfo

#: What identifies this package's finders among those of drgn.
_NAME = "xenkdump_fast"


def program_of(domain: Domain) -> Program:
    """The domain as a program of drgn, as if its kernel ran on a bare machine.

    drgn reads DWARF if the domain's vmlinux has it, or if this machine has the debug file.
    Otherwise types are those of the kernel's BTF. It is valid as long as the dump is open. Problems
    are warnings of the domain.
    """
    kernel, machine = domain.kernel, domain.as_bare()
    for text in machine.warnings:
        kernel.warn(text)
    program = Program()
    # Without CRASHTIME, drgn looks for a CPU's registers by its number plus 1, as QEMU writes it.
    cpus = [(cpu + 1, context.registers) for cpu, context in kernel.contexts.items()]
    info = vmcoreinfo.text_for(kernel, machine.vmcoreinfo)
    core_notes.attach(program, domain.dump.path, kernel.word, cpus, info)
    memory.attach(program, machine)
    has_dwarf = modules.add_kernel(program, kernel)
    known: set[str | None] = {None} if has_dwarf else set()
    finder = symbols.Finder(kernel, known)
    program.register_symbol_finder(_NAME, finder, enable_index=-1 if has_dwarf else 0)
    if has_dwarf or _add_types(program, kernel):
        loaded = modules.add_loadable(program, kernel)
        known.update(module.name for module in loaded if modules.has_debug_file(module))
        _set_context(program, kernel)
    return program


def _add_types(program: Program, kernel: Kernel) -> bool:
    """Adds finders of types and objects; returns whether there are types."""
    try:
        graph = kernel.types.graph
    except AbsentError as error:
        kernel.warn(f"drgn has no types, and no helper works: {error}")
        return False
    found = types.Types(program, graph)
    program.register_type_finder(_NAME, found.find, enable_index=0)
    program.register_object_finder(_NAME, objects.Finder(found, kernel), enable_index=0)
    return True


def _set_context(program: Program, kernel: Linux) -> None:
    """Gives crash-compatible commands a task if drgn finds none, because the kernel did not panic.

    As in crash, it is that of the first CPU.
    """
    for name in ("panic_cpu", "crashing_cpu"):
        address = kernel.symbols.get(name)
        try:
            if address is not None and kernel.number(address, 4) in kernel.active:
                return
        except MemoryFault:
            continue
    if kernel.active:
        task = kernel.active[min(kernel.active)]
        with suppress(LookupError):  # without the type, no command works
            context = Object(program, "struct task_struct *", task.address)
            program.config["crash_context"] = context
