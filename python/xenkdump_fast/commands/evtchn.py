"""``evtchn``: the event channels of domains."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import NamedTuple, TypedDict
from ..budget import BudgetExceededError
from ..isolation import isolated
from ..limits import MAX_EVENT_CHANNEL_READS
from ..output.json_types import Count
from ..output.table import table
from ..progress import each
from ..session import DumpFile
from ..xen.event_channels import VIRQS, Channel, Channels, Reader
from . import host_domains

OPERANDS = host_domains.OPERANDS
_HEAD = ("PORT", "STATE", "VCPU", "PENDING", "MASKED", "PRIORITY", "BOUND TO")
#: Columns that are numbers.
_NUMBERS = (0, 2, 5)


class Options(NamedTuple):
    """The domains."""

    #: All of them if empty.
    operands: Sequence[str] = ()
    #: Pending channels only.
    pending: bool = False
    #: Path of Xen's symbols, with DWARF.
    xen_syms: str | None = None
    #: Accepts Xen's symbols of another build.
    force: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``evtchn``."""
    parser.add_argument("--pending", action="store_true", help="pending channels only")
    host_domains.add_options(parser)


def run(target: DumpFile, options: Options = Options()) -> "EventChannels":
    """The event channels; AbsentError without a Xen host, or without its layout."""
    xen = host_domains.host(target, options.xen_syms, force=options.force)
    found, failure = host_domains.select(target, xen, options.operands)
    reader = Reader(xen.channel_structs, {domain.address: domain.id for domain in xen.domains()})
    rows: list[tuple[int, Channels]] = []
    problems = [] if failure is None else [failure]
    warnings: list[str] = []
    with xen.memory.budget("event channels", MAX_EVENT_CHANNEL_READS):
        for domain in each(found, "domain"):
            try:
                with isolated(f"domain {domain.id} is left out", problems.append, AbsentError):
                    channels = reader.read(domain)
                    warnings += (f"domain {domain.id}: {text}" for text in channels.warnings)
                    if options.pending:
                        some = [channel for channel in channels.channels if channel.pending]
                        channels = channels._replace(channels=some)
                    rows.append((domain.id, channels))
            except BudgetExceededError as error:
                problems.append(f"domain {domain.id} is left out: {error}")
                break
    if not rows:
        raise AbsentError(f"{target.path}: no event channels: {'; '.join(problems) or 'no domain'}")
    return EventChannels(rows, [*xen.warnings, *warnings], "; ".join(problems) or None)


class ChannelJson(TypedDict):
    """An event channel."""

    port: Count
    state: str
    vcpu: Count
    pending: bool | None
    masked: bool | None
    priority: Count | None
    remote_domain: Count | None
    remote_port: Count | None
    pirq: Count | None
    virq: Count | None
    virq_name: str | None
    by_xen: bool
    problem: str | None


class DomainJson(TypedDict):
    """The event channels of a domain."""

    domain: Count
    abi: str
    valid_ports: Count
    channels: list[ChannelJson]


class JSON(TypedDict):
    """What ``evtchn --json`` prints."""

    domains: list[DomainJson]


class EventChannels(NamedTuple):
    """The event channels of some domains."""

    #: By domain id.
    rows: list[tuple[int, Channels]]
    warnings: list[str]
    #: Why domains that were asked for are missing.
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """A table per domain."""
        for i, (domain, channels) in enumerate(self.rows):
            if i:
                yield ""
            yield (
                f"DOMAIN {domain}: {channels.abi} event channels, {channels.valid} ports, "
                f"{len(channels.channels)} shown"
            )
            if channels.channels:
                rows = (tuple(_cells(channel)) for channel in channels.channels)
                yield from table([_HEAD, *rows], _NUMBERS)

    def json(self) -> JSON:
        """Every channel that is not free."""
        return {
            "domains": [
                {
                    "domain": domain,
                    "abi": channels.abi,
                    "valid_ports": channels.valid,
                    "channels": [_json(channel) for channel in channels.channels],
                }
                for domain, channels in self.rows
            ]
        }


def _cells(channel: Channel) -> Iterator[str]:
    yield str(channel.port)
    yield channel.state
    yield str(channel.vcpu)
    for flag in (channel.pending, channel.masked):
        yield "?" if flag is None else "yes" if flag else "-"
    yield "-" if channel.priority is None else str(channel.priority)
    bound = "-"
    if channel.state == "unbound":
        bound = f"waits for domain {channel.remote_domain}"
    elif channel.state == "interdomain":
        remote = "?" if channel.remote_domain is None else channel.remote_domain
        bound = f"domain {remote} port {channel.remote_port}"
    elif channel.pirq is not None:
        bound = f"pirq {channel.pirq}"
    elif channel.virq is not None:
        name = VIRQS.get(channel.virq)
        bound = f"virq {channel.virq}" + ("" if name is None else f" ({name})")
    if channel.by_xen:
        bound += ", handled by Xen"
    yield bound + (" [damaged]" if channel.problem else "")


def _json(channel: Channel) -> ChannelJson:
    return {
        "port": channel.port,
        "state": channel.state,
        "vcpu": channel.vcpu,
        "pending": channel.pending,
        "masked": channel.masked,
        "priority": channel.priority,
        "remote_domain": channel.remote_domain,
        "remote_port": channel.remote_port,
        "pirq": channel.pirq,
        "virq": channel.virq,
        "virq_name": None if channel.virq is None else VIRQS.get(channel.virq),
        "by_xen": channel.by_xen,
        "problem": channel.problem,
    }
