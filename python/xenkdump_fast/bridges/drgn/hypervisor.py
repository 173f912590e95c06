"""Opens Xen itself as a program of drgn, with the DWARF of its xen-syms."""

from drgn import ModuleFileStatus, Program

from ..._native import AbsentError
from ...xen.host import XenHost
from . import core_notes, memory, symbols

#: What identifies this package's finder among those of drgn.
_NAME = "xenkdump_fast"


def program_of_xen(xen: XenHost) -> Program:
    """Xen as a program of drgn, whose threads are the pCPUs.

    For drgn it is not a Linux kernel. AbsentError if xen-syms was not given.
    """
    image = xen.image
    if image is None or xen.symbols is None:
        raise AbsentError("drgn needs xen-syms, and its DWARF for types")
    program = Program()
    cpus = [(pcpu.number, pcpu.registers) for pcpu in xen.pcpus if pcpu.registers]
    core_notes.attach(program, xen.dump.path, xen.word, cpus, None)
    memory.attach_spaces(program, xen.memory.virtual, xen.dump.machine)
    found = program.extra_module("xen-syms", create=True)
    names = [xen.symbols.get(name) for name in ("_start", "_stext", "_end", "__2M_rwdata_end")]
    known = [address for address in names if address is not None]
    if len(known) >= 2:
        found.address_range = (min(known), max(known))
    found.try_file(image.path, force=True)
    if found.debug_file_status != ModuleFileStatus.HAVE:
        xen.warnings.append(f"{image.path} has no DWARF: drgn has no types of Xen")
        program.register_symbol_finder(_NAME, symbols.Static(xen.symbols), enable_index=0)
    return program
