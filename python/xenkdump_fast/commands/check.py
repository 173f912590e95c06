"""``check``: compares the P2M sources of a domain with one another and with Xen's M2P."""

from collections.abc import Iterator

from .._native import P2M, AbsentError, P2MComparison
from .._typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict
from ..limits import MAX_LISTED_DISAGREEMENTS, MAX_LISTED_SOURCES
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..session import DumpFile
from ..session.domain_id import domain_id
from ..session.locator import Locator
from ..session.platform import platform_of
from ..xen import m2p

if TYPE_CHECKING:
    from .._native import P2MEntry


class Options(NamedTuple):
    """The domain."""

    #: Its id or a name.
    domain: int | str = 0
    #: Path of its vmlinux. With it a source counts only if it leads to the domain's own kernel.
    vmlinux: str | None = None


class Offered(NamedTuple):
    """A P2M source that the dump offers."""

    name: str
    #: Where it was found, in words.
    detail: str
    #: Number of pfns that it covers; None if it cannot be used.
    pages: int | None
    #: Why it cannot be used.
    problem: str | None


class Pair(NamedTuple):
    """Two sources, compared."""

    first: str
    second: str
    comparison: P2MComparison


def run(target: DumpFile, options: Options = Options()) -> "Check":
    """Opens every P2M source of a domain and compares each with the first.

    AbsentError if the dump offers none that can be used.
    """
    number = domain_id(target, options.domain)
    platform = platform_of(target, number)
    if platform.identity and platform.p2m() is None:
        what = "not the dump of a Xen host"
        if target.native.is_normalised:
            what = "the page tables of a saved domain hold pfns"
        elif target.is_domain_file:
            what = "a translated guest"
        raise AbsentError(f"{target.path}: domain {number} has no P2M: {what}")
    image = None if options.vmlinux is None else target.image(options.vmlinux)
    offered: list[Offered] = []
    usable: dict[str, P2M] = {}
    for candidate in Locator(platform, image).candidates():
        source, p2m = candidate.source, candidate.p2m
        if source.name in usable:
            continue  # the same source by another path: another CPU's root, another note
        if p2m is not None:
            usable[source.name] = p2m
            offered.append(Offered(source.name, source.detail, p2m.pages, None))
        elif len(offered) < MAX_LISTED_SOURCES:
            offered.append(Offered(source.name, source.detail, None, candidate.problem))
    if not usable:
        problems = "; ".join(f"{found.name}: {found.problem}" for found in offered)
        reason = problems or "the dump offers no source of it"
        raise AbsentError(f"{target.path}: no P2M of domain {number} can be read: {reason}")
    (name, reference), *others = usable.items()
    table = m2p.find(target.native, reference, platform.m2p_roots())
    return Check(
        path=target.path,
        domain=number,
        offered=offered,
        pairs=[
            Pair(name, other, reference.compare(p2m, MAX_LISTED_DISAGREEMENTS))
            for other, p2m in others
        ],
        source=name,
        m2p_at=None if table is None else f"{table.address:#x} by {table.how}",
        m2p=None if table is None else m2p.compare(reference, table, MAX_LISTED_DISAGREEMENTS),
    )


class SourceJson(TypedDict):
    """A P2M source."""

    name: str
    detail: str
    pages: NotRequired[Count]
    problem: NotRequired[str]


class PfnJson(TypedDict):
    """A pfn on which two sources disagree."""

    pfn: Hex
    entries: tuple[str, str]


class ComparisonJson(TypedDict):
    """Two sources, compared."""

    sources: tuple[str, str]
    equal: Count
    different: Count
    hidden_identity: Count
    past_end: Count
    unreadable: Count
    first: list[PfnJson]


class M2pEntryJson(TypedDict):
    """A frame whose M2P entry is another pfn."""

    pfn: Hex
    mfn: Hex
    m2p: Hex


class M2pJson(TypedDict):
    """The P2M, compared with Xen's M2P."""

    at: str | None
    source: str
    equal: Count
    different: Count
    unreadable: Count
    first: list[M2pEntryJson]


class JSON(TypedDict):
    """What ``check --json`` prints."""

    domain: Count
    sources: list[SourceJson]
    comparisons: list[ComparisonJson]
    disagreements: Count
    m2p: M2pJson | None


class Check(NamedTuple):
    """Sources and comparisons."""

    path: str
    domain: int
    offered: list[Offered]
    pairs: list[Pair]
    #: The source that the M2P was compared with, and where the M2P was found.
    source: str
    m2p_at: str | None
    m2p: m2p.Reverse | None

    @property
    def disagreements(self) -> int:
        """Number of pfns on which two sources disagree, without the M2P: guests may write to it."""
        return sum(pair.comparison.different for pair in self.pairs)

    @property
    def failure(self) -> str | None:
        """The message if sources disagree."""
        if not self.disagreements:
            return None
        return (
            f"{self.path}: the P2M sources of domain {self.domain} disagree on "
            f"{self.disagreements} pfns"
        )

    def text(self) -> Iterator[str]:
        """The sources, the comparisons, and a summary."""
        yield f"P2M OF DOMAIN {self.domain}"
        for offered in self.offered:
            yield _offered(offered)
        for pair in self.pairs:
            yield ""
            yield from _pair(pair)
        yield ""
        yield from _m2p(self)
        yield ""
        usable = [offered for offered in self.offered if offered.problem is None]
        if self.disagreements:
            yield f"{self.disagreements} DISAGREEMENTS among {len(usable)} sources"
        elif len(usable) == 1:
            yield "ONE SOURCE: there is nothing to compare it with"
        else:
            yield f"ALL {len(usable)} SOURCES AGREE"

    def json(self) -> JSON:
        """The domain, its sources and the comparisons."""
        found = self.m2p
        return {
            "domain": self.domain,
            "sources": list(map(_source_json, self.offered)),
            "comparisons": [_pair_json(pair) for pair in self.pairs],
            "disagreements": self.disagreements,
            "m2p": None
            if found is None
            else {
                "at": self.m2p_at,
                "source": self.source,
                "equal": found.equal,
                "different": found.different,
                "unreadable": found.unreadable,
                "first": [
                    {"pfn": hex(wrong.pfn), "mfn": hex(wrong.mfn), "m2p": hex(wrong.found)}
                    for wrong in found.first
                ],
            },
        }


def _offered(offered: Offered) -> str:
    if offered.pages is None:
        return f"  {offered.name:10} unusable: {visible(offered.problem or '')}"
    return f"  {offered.name:10} {offered.pages:>10} pfns  {visible(offered.detail)}"


def _pair(pair: Pair) -> Iterator[str]:
    found = pair.comparison
    yield f"{pair.first} / {pair.second}: {found.equal} agree, {found.different} differ"
    if found.hidden_identity:
        yield f"  {found.hidden_identity} are identity in one, invalid in the other, as must be"
    if found.past_end:
        yield f"  {found.past_end} lie past the end of one of them"
    if found.unreadable:
        yield f"  {found.unreadable} are on P2M pages that the dump lacks"
    for pfn, first, second in found.first:
        yield f"  pfn {pfn:#x}: {_entry(first)} / {_entry(second)}"
    if found.different > len(found.first):
        yield f"  and {found.different - len(found.first)} more"


def _entry(entry: "P2MEntry") -> str:
    kind, mfn = entry
    return kind if mfn is None else f"{kind} {mfn:#x}"


def _m2p(result: Check) -> Iterator[str]:
    found = result.m2p
    if found is None:
        yield "M2P: no root of the dump maps it"
        return
    yield (
        f"{result.source} / M2P at {result.m2p_at}: {found.equal} frames lead back, "
        f"{found.different} do not"
    )
    if found.unreadable:
        yield f"  {found.unreadable} have no entry in the dump"
    for wrong in found.first:
        yield f"  pfn {wrong.pfn:#x}: mfn {wrong.mfn:#x}, which leads to {wrong.found:#x}"
    if found.different > len(found.first):
        yield f"  and {found.different - len(found.first)} more"


def _source_json(offered: Offered) -> SourceJson:
    found: SourceJson = {"name": offered.name, "detail": offered.detail}
    if offered.pages is not None:
        found["pages"] = offered.pages
    if offered.problem is not None:
        found["problem"] = offered.problem
    return found


def _pair_json(pair: Pair) -> ComparisonJson:
    found = pair.comparison
    return {
        "sources": (pair.first, pair.second),
        "equal": found.equal,
        "different": found.different,
        "hidden_identity": found.hidden_identity,
        "past_end": found.past_end,
        "unreadable": found.unreadable,
        "first": [
            {"pfn": hex(pfn), "entries": (_entry(first), _entry(second))}
            for pfn, first, second in found.first
        ],
    }
