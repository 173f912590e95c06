"""The domains of a host that the operands of a command name."""

import argparse
from collections.abc import Sequence

from .._native import AbsentError
from ..session import DumpFile
from ..session.domain_id import domain_id
from ..xen.host import HostDomain, XenHost
from .contract import Operands

OPERANDS = Operands(
    "DOMAIN", "domains by their ids, their UUIDs or the node names of their kernels", "*"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a command that reads Xen's structs by their DWARF."""
    parser.add_argument(
        "--xen-syms", metavar="XEN-SYMS", help="Xen's symbols, with DWARF for all that is shown"
    )
    parser.add_argument("--force", action="store_true", help="accept a xen-syms of another build")


def host(target: DumpFile, xen_syms: str | None, *, force: bool) -> XenHost:
    """The hypervisor; AbsentError if the dump is not of a Xen host."""
    if target.is_domain_file:
        raise AbsentError(f"{target.path}: the file of one domain has nothing of Xen")
    return target.xen(xen_syms, force=force)


def select(
    target: DumpFile, xen: XenHost, operands: Sequence[str]
) -> tuple[list[HostDomain], str | None]:
    """The domains, all of them without operands, and why some are missing.

    AbsentError if there is none of those.
    """
    if not operands:
        return xen.domains(), None
    found: dict[int, HostDomain] = {}
    problems: list[str] = []
    for text in dict.fromkeys(operands):
        try:
            domain = xen.domain(domain_id(target, text))
        except AbsentError as error:
            problems.append(str(error))
        else:
            found[domain.id] = domain
    if not found:
        raise AbsentError("; ".join(problems))
    return list(found.values()), "; ".join(problems) or None
