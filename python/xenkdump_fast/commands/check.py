"""All ways to a domain's P2M against each other, frame by frame, and against Xen's M2P."""

from typing import NamedTuple

from .._native import P2M, AbsentError, Image, P2MComparison
from ..linux.boot.locate import Roots, locate
from ..session import Dump
from ..session.platform import Core, Guest, Platform
from ..xen import m2p
from ..xen.p2m_sources import Source

#: How many disagreements of a kind are listed.
LISTED = 20
#: As many sources are listed that cannot be used.
_OFFERED = 32


class Offered(NamedTuple):
    """A source of the P2M that the dump offers."""

    name: str
    #: Where it was found, in words.
    detail: str
    #: The pfns it tells of; None where it cannot be used.
    pages: int | None
    #: Why it cannot.
    problem: str | None


class Pair(NamedTuple):
    """Two sources, compared."""

    first: str
    second: str
    comparison: P2MComparison


class Check(NamedTuple):
    """What ``xkdump check`` found."""

    domain: int
    offered: list[Offered]
    pairs: list[Pair]
    #: The source that the M2P was compared with, and where that table was found.
    source: str
    m2p_at: str | None
    m2p: m2p.Reverse | None

    @property
    def disagreements(self) -> int:
        """On how many pfns some pair of sources disagrees; the M2P, being hints, does not count."""
        return sum(pair.comparison.different for pair in self.pairs)


def run(dump: Dump, number: int = 0, vmlinux: str | None = None) -> Check:
    """Opens every source of a domain's P2M and compares each with the first.

    With its ``vmlinux`` a source counts only if it is of the kernel's own domain. AbsentError where
    the dump offers none.
    """
    image = None if vmlinux is None else Image(vmlinux)
    machine = _platform(dump, number)
    native = dump.native
    roots = None if image is None else Roots(native, image, machine.roots())
    offered: list[Offered] = []
    usable: dict[str, P2M] = {}
    for source in machine.sources(image):
        if source.name in usable:
            continue  # the same by another way: another CPU's root, another note
        try:
            p2m = _open(dump, roots, source)
        except AbsentError as error:
            if len(offered) < _OFFERED:
                offered.append(Offered(source.name, source.detail, None, str(error)))
            continue
        usable[source.name] = p2m
        offered.append(Offered(source.name, source.detail, p2m.pages, None))
    if not usable:
        problems = "; ".join(f"{found.name}: {found.problem}" for found in offered)
        raise AbsentError(
            f"{dump.path}: no P2M of domain {number} can be read: {problems or 'none is offered'}"
        )
    (name, reference), *others = usable.items()
    table = m2p.find(
        native,
        reference,
        [(root.address, root.how) for root in (*machine.own_roots(), *machine.roots())],
    )
    return Check(
        domain=number,
        offered=offered,
        pairs=[Pair(name, other, reference.compare(p2m, LISTED)) for other, p2m in others],
        source=name,
        m2p_at=None if table is None else f"{table.address:#x} by {table.how}",
        m2p=None if table is None else m2p.compare(reference, table, LISTED),
    )


def _platform(dump: Dump, number: int) -> Platform:
    if dump.is_xen_host:
        return Guest(dump, number)
    if dump.is_dump_core and number == 0:
        return Core(dump)
    raise AbsentError(f"{dump.path}: no domain {number} with a P2M: not the dump of a Xen host")


def _open(dump: Dump, roots: Roots | None, source: Source) -> P2M:
    """Opens a source; AbsentError if it is broken, or another domain's."""
    p2m = source.open()
    if p2m.pages == 0:
        raise AbsentError("it tells of no pfn")
    if roots is not None:
        locate(roots, p2m, dump.vmcoreinfo, dump.native.physical(p2m))
    return p2m
