"""``grants``: the grant tables of domains."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import NamedTuple, TypedDict
from ..budget import BudgetExceededError
from ..isolation import isolated
from ..limits import MAX_GRANT_READS
from ..output.json_types import Count, Hex
from ..output.table import table
from ..progress import each
from ..session import DumpFile
from ..xen import grants
from ..xen.grants import RESERVED, Grant, GrantTable, Mapping
from . import host_domains

OPERANDS = host_domains.OPERANDS
_HEAD = ("REF", "TYPE", "DOM", "FRAME", "FLAGS", "MFN", "IN USE")
#: Columns that are numbers.
_NUMBERS = (0, 2, 3, 5)
_MAPS_HEAD = ("HANDLE", "DOM", "REF", "MAPPED FOR")


class Options(NamedTuple):
    """The domains."""

    #: All of them if empty.
    operands: Sequence[str] = ()
    #: Grants in use only, as Xen's debug key g.
    active: bool = False
    #: Path of Xen's symbols, with DWARF.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``grants``."""
    parser.add_argument("--active", action="store_true", help="grants in use only")
    host_domains.add_options(parser)


def run(target: DumpFile, options: Options = Options()) -> "Grants":
    """The grant tables; AbsentError without a Xen host, or without its layout."""
    xen = host_domains.host(target, options.xen_syms, force=options.force)
    found, failure = host_domains.select(target, xen, options.operands)
    structs = xen.grant_structs
    rows: list[tuple[int, GrantTable]] = []
    problems = [] if failure is None else [failure]
    warnings: list[str] = []
    with xen.memory.budget("grant tables", MAX_GRANT_READS):
        for domain in each(found, "domain"):
            try:
                with isolated(f"domain {domain.id} is left out", problems.append, AbsentError):
                    own = grants.read(structs, domain.address)
                    warnings += (f"domain {domain.id}: {text}" for text in own.warnings)
                    if options.active:
                        own = own._replace(grants=[grant for grant in own.grants if grant.pins])
                    rows.append((domain.id, own))
            except BudgetExceededError as error:
                problems.append(f"domain {domain.id} is left out: {error}")
                break
    if not rows:
        raise AbsentError(f"{target.path}: no grant tables: {'; '.join(problems) or 'no domain'}")
    return Grants(rows, [*xen.warnings, *warnings], "; ".join(problems) or None)


class GrantJson(TypedDict):
    """A grant that is offered or in use."""

    ref: Count
    type: str
    domain: Count | None
    frame: Hex | None
    flags: list[str]
    mfn: Hex | None
    pins: dict[str, Count]
    problem: str | None


class MapJson(TypedDict):
    """A grant of another domain that the domain has mapped."""

    handle: Count
    domain: Count
    ref: Count
    host: bool
    device: bool
    read_only: bool


class DomainJson(TypedDict):
    """The grant table of a domain."""

    domain: Count
    version: Count
    frames: Count
    max_frames: Count
    grants: list[GrantJson]
    maps: list[MapJson]


class JSON(TypedDict):
    """What ``grants --json`` prints."""

    domains: list[DomainJson]


class Grants(NamedTuple):
    """The grant tables of some domains."""

    #: By domain id.
    rows: list[tuple[int, GrantTable]]
    warnings: list[str]
    #: Why domains that were asked for are missing.
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """A table of the grants of each domain, and one of those that it has mapped."""
        for i, (domain, own) in enumerate(self.rows):
            if i:
                yield ""
            yield (
                f"DOMAIN {domain}: grant table v{own.version}, {own.frames} of {own.max_frames} "
                f"frames, {len(own.grants)} grants shown, {len(own.maps)} mapped of others"
            )
            if own.grants:
                yield from table([_HEAD, *(tuple(_cells(one)) for one in own.grants)], _NUMBERS)
            if own.maps:
                yield from table([_MAPS_HEAD, *(tuple(_map(one)) for one in own.maps)], (0, 1, 2))

    def json(self) -> JSON:
        """Every grant that is offered or in use."""
        return {
            "domains": [
                {
                    "domain": domain,
                    "version": own.version,
                    "frames": own.frames,
                    "max_frames": own.max_frames,
                    "grants": [_json(grant) for grant in own.grants],
                    "maps": [_map_json(one) for one in own.maps],
                }
                for domain, own in self.rows
            ]
        }


def _cells(grant: Grant) -> Iterator[str]:
    yield str(grant.ref)
    yield grant.type
    yield "-" if grant.domain is None else str(grant.domain)
    yield "-" if grant.frame is None else f"{grant.frame:x}"
    yield ",".join(grant.flags) or "-"
    yield "-" if grant.mfn is None else f"{grant.mfn:x}"
    uses = ", ".join(f"{name} {count}" for name, count in grant.pins.items())
    name = RESERVED.get(grant.ref)
    yield (uses or "-") + ("" if name is None else f" ({name})")


def _map(mapping: Mapping) -> Iterator[str]:
    yield str(mapping.handle)
    yield str(mapping.domain)
    yield str(mapping.ref)
    uses = [name for name in ("host", "device") if getattr(mapping, name)]
    yield ", ".join([*uses, *(["read-only"] if mapping.read_only else [])])


def _json(grant: Grant) -> GrantJson:
    return {
        "ref": grant.ref,
        "type": grant.type,
        "domain": grant.domain,
        "frame": None if grant.frame is None else hex(grant.frame),
        "flags": grant.flags,
        "mfn": None if grant.mfn is None else hex(grant.mfn),
        "pins": grant.pins,
        "problem": grant.problem,
    }


def _map_json(mapping: Mapping) -> MapJson:
    return {
        "handle": mapping.handle,
        "domain": mapping.domain,
        "ref": mapping.ref,
        "host": mapping.host,
        "device": mapping.device,
        "read_only": mapping.read_only,
    }
