"""``bt``, ``log`` and ``sys`` with ``--hypervisor``: of Xen itself."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .._native import Dump
from ..xen import console, header, stacks
from ..xen.console import Console
from ..xen.header import Header
from ..xen.host import Xen, open_symbols
from ..xen.stacks import PcpuTrace


@dataclass(frozen=True, slots=True)
class XenBacktraces:
    """What ``xkdump bt --hypervisor`` found."""

    word: int
    traces: list[PcpuTrace]


@dataclass(frozen=True, slots=True)
class XenSystem:
    """What ``xkdump sys --hypervisor`` found."""

    #: The file with Xen's symbols; None without.
    kernel: str | None
    dump: str
    header: Header


def open_xen(path: str, xen_syms: str | None, *, force: bool = False) -> Xen:
    """The hypervisor of the dump at ``path``; says in its warnings what is lost without symbols."""
    image, symbols = open_symbols(xen_syms) if xen_syms is not None else (None, None)
    xen = Xen(Dump(path), image, symbols=symbols, force=force)
    xen.warnings[:0] = xen.dump.warnings
    if xen.symbols is None:
        xen.warnings.append(
            "without xen-syms there are no names of Xen's functions and variables: its stacks, "
            "clock rate and memory size are not told in full"
        )
    return xen


def bt(xen: Xen, methods: Sequence[str] | None = None) -> XenBacktraces:
    """The stack of each pCPU, from Xen's registers down to the guest that it ran."""
    return XenBacktraces(xen.word, stacks.traces(xen, methods))


def log(xen: Xen) -> Console:
    """Xen's console ring; AbsentError if it cannot be found."""
    return console.read(xen)


def system(xen: Xen, xen_syms: str | None) -> XenSystem:
    """The facts of the hypervisor."""
    name = None if xen_syms is None else os.path.basename(xen_syms)
    return XenSystem(name, os.path.basename(xen.dump.path), header.read(xen))
