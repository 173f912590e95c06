"""``check`` as text and as JSON."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..commands.check import Check, Offered, Pair
from .escape import visible

if TYPE_CHECKING:
    from .._native import P2MEntry


def lines(result: Check) -> Iterator[str]:
    """The sources, the comparisons, and a summary."""
    yield f"P2M OF DOMAIN {result.domain}"
    for offered in result.offered:
        yield _offered(offered)
    for pair in result.pairs:
        yield ""
        yield from _pair(pair)
    yield ""
    yield from _m2p(result)
    yield ""
    usable = [offered for offered in result.offered if offered.problem is None]
    if result.disagreements:
        yield f"{result.disagreements} DISAGREEMENTS among {len(usable)} sources"
    elif len(usable) == 1:
        yield "ONE SOURCE: there is nothing to compare it with"
    else:
        yield f"ALL {len(usable)} SOURCES AGREE"


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


def json(result: Check) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    found = result.m2p
    return {
        "domain": result.domain,
        "sources": [
            {name: value for name, value in offered._asdict().items() if value is not None}
            for offered in result.offered
        ],
        "comparisons": [_pair_json(pair) for pair in result.pairs],
        "disagreements": result.disagreements,
        "m2p": None
        if found is None
        else {
            "at": result.m2p_at,
            "source": result.source,
            "equal": found.equal,
            "different": found.different,
            "unreadable": found.unreadable,
            "first": [
                {"pfn": hex(wrong.pfn), "mfn": hex(wrong.mfn), "m2p": hex(wrong.found)}
                for wrong in found.first
            ],
        },
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    found = pair.comparison
    return {
        "sources": [pair.first, pair.second],
        "equal": found.equal,
        "different": found.different,
        "hidden_identity": found.hidden_identity,
        "past_end": found.past_end,
        "unreadable": found.unreadable,
        "first": [
            {"pfn": hex(pfn), "entries": [_entry(first), _entry(second)]}
            for pfn, first, second in found.first
        ],
    }
