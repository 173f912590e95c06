"""VMCOREINFO as drgn needs it."""

from ...limits import MAX_VMCOREINFO_NOTE
from ...linux.kernel import Kernel

#: drgn takes the registers of a kernel that has it from its own ``crash_notes``, and those are of
#: the CPUs that answered to the panic only, or of an earlier crash.
_OMITTED = (b"CRASHTIME=",)
#: Names of the kernel's top page table.
_TABLES = ("swapper_pg_dir", "init_top_pgt", "init_level4_pgt")
#: drgn requires an address that is not 0, but reads virtual memory through ours.
_NO_TABLE = 1


def text_for(kernel: Kernel, recorded: bytes) -> bytes:
    """The kernel's VMCOREINFO, with its true KASLR offset and what drgn requires besides.

    ``recorded`` is empty for a kernel that has none.
    """
    slide = b"KERNELOFFSET=%x" % kernel.location.slide
    lines = [
        line
        for line in recorded[:MAX_VMCOREINFO_NOTE].rstrip(b"\0").splitlines()
        if line and not line.startswith((*_OMITTED, b"KERNELOFFSET="))
    ]
    lines.append(slide)
    keys = {line.partition(b"=")[0] for line in lines}
    if b"OSRELEASE" not in keys:
        lines.append(b"OSRELEASE=" + kernel.release.encode())
    if b"PAGESIZE" not in keys:
        lines.append(b"PAGESIZE=4096")
    if b"SYMBOL(swapper_pg_dir)" not in keys:
        tables = (kernel.symbols.get(name) for name in _TABLES)
        lines.append(b"SYMBOL(swapper_pg_dir)=%x" % next(filter(None, tables), _NO_TABLE))
    return b"\n".join(lines) + b"\n"
