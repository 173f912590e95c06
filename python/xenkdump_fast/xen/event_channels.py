"""The event channels of a domain, by the DWARF of xen-syms."""

from collections.abc import Iterator, Mapping

from .._native import AbsentError
from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_EVENT_CHANNELS
from .domain_details import event_channel_abi
from .memory import PAGE
from .structs import Field, Structs, listed

if TYPE_CHECKING:
    from .host import HostDomain

#: ``evtchn.state`` (ECS_*), the same in every version.
STATES = ("free", "reserved", "unbound", "interdomain", "pirq", "virq", "ipi")
#: Virtual interrupts by number (public ABI, VIRQ_*); those of an architecture have none.
VIRQS = {
    0: "timer",
    1: "debug",
    2: "console",
    3: "dom_exc",
    4: "tbuf",
    6: "debugger",
    7: "xenoprof",
    8: "con_ring",
    9: "pcpu_state",
    10: "mem_event",
    11: "argo",
    12: "enomem",
    13: "xenpmu",
}
#: Offsets in shared_info by its word (public ABI): of evtchn_pending, of evtchn_mask, and the
#: number of channels.
_BITMAPS = {8: (2048, 2560, 4096), 4: (2048, 2176, 1024)}
#: Bits of the event word of a FIFO event channel (public ABI).
_PENDING, _MASKED = 1 << 31, 1 << 30


class Channel(NamedTuple):
    """An event channel that is not free."""

    port: int
    state: str
    #: The vCPU that is notified.
    vcpu: int
    pending: bool | None
    masked: bool | None
    #: Of an unbound channel, the domain that may bind to it; of a bound one, the other end.
    remote_domain: int | None
    remote_port: int | None
    pirq: int | None
    virq: int | None
    #: Of a FIFO event channel.
    priority: int | None
    #: Whether Xen itself handles its events.
    by_xen: bool
    #: How it contradicts the other end, or itself.
    problem: str | None = None


class Channels(NamedTuple):
    """The event channels of a domain."""

    abi: str
    #: Number of ports that Xen has allocated.
    valid: int
    channels: list[Channel]
    warnings: list[str]


class _Fields(NamedTuple):
    """The members of a struct evtchn."""

    port: Field
    state: Field
    vcpu: Field
    consumer: Field | None
    priority: Field | None
    unbound: Field
    remote: Field
    remote_port: Field
    pirq: Field
    virq: Field


class Reader:
    """Reads the channels of the domains of a host."""

    def __init__(self, structs: Structs, domains: Mapping[int, int]) -> None:
        """``domains`` are the ids by the addresses of their structs. AbsentError without DWARF."""
        self.structs = structs
        self._memory = structs.memory
        self._domains = domains
        field = structs.field

        def optional(path: str) -> Field | None:
            return field(path) if structs.has(path) else None

        self._fields = _Fields(
            port=field("evtchn.port"),
            state=field("evtchn.state"),
            vcpu=field("evtchn.notify_vcpu_id"),
            consumer=optional("evtchn.xen_consumer"),
            priority=optional("evtchn.priority"),
            unbound=field("evtchn.u.unbound.remote_domid"),
            remote=field("evtchn.u.interdomain.remote_dom"),
            remote_port=field("evtchn.u.interdomain.remote_port"),
            pirq=field("evtchn.u.pirq.irq"),
            virq=field("evtchn.u.virq"),
        )
        if not structs.has("domain.evtchn_group"):
            raise AbsentError(
                "event channels in the layout of Xen before 4.4 are not supported "
                "(no domain.evtchn_group)"
            )
        self._has_valid = structs.has("domain.valid_evtchns")
        self._size = structs.size("struct evtchn")
        if self._size > PAGE:
            raise AbsentError("xen-syms: struct evtchn is larger than a page")
        # A bucket is a page of structs, and their number a power of two.
        self._per_bucket = PAGE // (1 << (self._size - 1).bit_length())
        self._per_group = self._per_bucket * (PAGE // self._memory.word)
        #: Pages of pointers and of structs that were read.
        self._pages: dict[int, bytes | None] = {}

    def read(self, domain: "HostDomain") -> Channels:
        """The channels of a domain; AbsentError if nothing leads to them."""
        # Other domains' buckets are read again for each domain: pages of one domain are kept.
        self._pages.clear()
        address = domain.address
        warnings: list[str] = []
        abi = event_channel_abi(self.structs, address)
        valid = self._valid(address)
        if abi is None or valid is None:
            raise AbsentError(f"its struct domain at {address:#x} cannot be read")
        if valid > MAX_EVENT_CHANNELS or valid % self._per_bucket:
            warnings.append(f"its number of event channels is damaged: {valid}")
            valid = min(valid, MAX_EVENT_CHANNELS) // self._per_bucket * self._per_bucket
        bits = _Fifo(self, address) if abi == "FIFO" else _TwoLevel(domain, self.structs)
        channels: list[Channel] = []
        missing = 0
        for first in range(0, valid, self._per_bucket):
            at = self._bucket(address, first)
            bucket = None
            if at is not None:
                bucket = self._memory.read(at, self._per_bucket * self._size)
            if bucket is None:
                missing += self._per_bucket
                continue
            channels += self._in_bucket(address, bucket, first, bits)
        if missing:
            text = f"{missing} of {valid} ports are not known: their structs cannot be read"
            warnings.append(text)
        if bits.problem is not None:
            warnings.append(bits.problem)
        problems = [f"port {one.port}: {one.problem}" for one in channels if one.problem]
        warnings += listed(problems, "event channels are damaged")
        return Channels(abi, valid, channels, warnings)

    def _valid(self, domain: int) -> int | None:
        """The number of ports that Xen has allocated structs for; None if it cannot be read."""
        if self._has_valid:
            return self.structs.number("domain.valid_evtchns", domain)
        # Before the fix of XSA-344 (4.15, and 4.14.1) the first bucket that is missing ends them.
        if self.structs.number("domain.evtchn", domain) is None:
            return None
        found = 0
        while found < MAX_EVENT_CHANNELS and self._bucket(domain, found) is not None:
            found += self._per_bucket
        return found

    def page(self, address: int) -> bytes | None:
        """A page or less, kept for this domain."""
        if address not in self._pages:
            is_xen = address % self._memory.word == 0 and self._memory.is_xen(address)
            self._pages[address] = self._memory.read(address, PAGE) if is_xen else None
        return self._pages[address]

    def _bucket(self, domain: int, port: int) -> int | None:
        """The address of the structs of the ports in the bucket of ``port``."""
        structs, word = self.structs, self._memory.word
        if port < self._per_bucket:
            at = structs.pointer("domain.evtchn", domain)
        else:
            group = structs.member("domain.evtchn_group")
            index = port // self._per_group
            if index >= (group.count or 0):
                return None
            table = self._memory.pointer(domain + group.offset + index * word)
            page = None if not table else self.page(table)
            if page is None:
                return None
            entry = port % self._per_group // self._per_bucket * word
            at = int.from_bytes(page[entry : entry + word], "little")
        if not at or at % word or not self._memory.is_xen(at):
            return None
        return at

    def _in_bucket(
        self, domain: int, bucket: bytes, first: int, bits: "_Fifo | _TwoLevel"
    ) -> Iterator[Channel]:
        fields, size = self._fields, self._size
        for index in range(self._per_bucket):
            at = index * size
            state = fields.state.of(bucket, at)
            if state == 0:
                continue
            port = first + index
            name = STATES[state] if state < len(STATES) else f"state {state}"
            problem = None if state < len(STATES) else f"its state {state} does not exist"
            recorded = fields.port.of(bucket, at)
            if recorded != port:
                problem = f"its struct is of port {recorded}"
            pending, masked = bits.of(port)
            remote_domain = remote_port = None
            if name == "unbound":
                remote_domain = fields.unbound.of(bucket, at)
            elif name == "interdomain":
                remote = fields.remote.of(bucket, at)
                remote_port = fields.remote_port.of(bucket, at)
                remote_domain = self._domains.get(remote)
                if remote_domain is None:
                    problem = f"its other end is no domain that is known: {remote:#x}"
                else:
                    problem = problem or self._contradiction(domain, port, remote, remote_port)
            yield Channel(
                port=port,
                state=name,
                vcpu=fields.vcpu.of(bucket, at),
                pending=pending,
                masked=masked,
                remote_domain=remote_domain,
                remote_port=remote_port,
                pirq=fields.pirq.of(bucket, at) if name == "pirq" else None,
                virq=fields.virq.of(bucket, at) if name == "virq" else None,
                priority=fields.priority.of(bucket, at)
                if fields.priority is not None and isinstance(bits, _Fifo)
                else None,
                by_xen=fields.consumer is not None and fields.consumer.of(bucket, at) != 0,
                problem=problem,
            )

    def _contradiction(self, domain: int, port: int, remote: int, remote_port: int) -> str | None:
        """How the other end of a channel does not lead back; None if it does."""
        fields = self._fields
        valid = self._valid(remote) if self._has_valid else MAX_EVENT_CHANNELS
        is_valid = valid is not None and remote_port < min(valid, MAX_EVENT_CHANNELS)
        at = self._bucket(remote, remote_port) if is_valid else None
        other = None
        if at is not None:
            other = self._memory.read(at + remote_port % self._per_bucket * self._size, self._size)
        if other is None:
            return f"its other end, port {remote_port}, cannot be read"
        if fields.state.of(other) != STATES.index("interdomain"):
            return f"its other end, port {remote_port}, is not bound"
        if (fields.remote.of(other), fields.remote_port.of(other)) != (domain, port):
            return f"its other end, port {remote_port}, is bound to another channel"
        return None


class _TwoLevel:
    """Pending and masked channels by the bitmaps in shared_info."""

    def __init__(self, domain: "HostDomain", structs: Structs) -> None:
        self.problem: str | None = None
        self._page = domain.shared_page
        if self._page is None:
            self.problem = "pending and masked channels are not known: no shared_info"
        is_32bit = structs.number("domain.arch.has_32bit_shinfo", domain.address)
        word = domain.word if is_32bit is None else 4 if is_32bit else 8
        self._pending, self._masked, self._count = _BITMAPS[word]

    def of(self, port: int) -> tuple[bool | None, bool | None]:
        """Whether a port is pending and whether it is masked."""
        page = self._page
        if page is None or port >= self._count:
            return None, None
        byte, bit = divmod(port, 8)
        pending, masked = page[self._pending + byte], page[self._masked + byte]
        return bool(pending >> bit & 1), bool(masked >> bit & 1)


class _Fifo:
    """Pending and masked channels by the event words that Xen and the guest share."""

    def __init__(self, reader: Reader, domain: int) -> None:
        self.problem: str | None = None
        self._reader = reader
        self._words: list[int | None] = []
        structs = reader.structs
        memory = structs.memory
        fifo = structs.pointer("domain.evtchn_fifo", domain)
        self._count = 0
        if fifo is None:
            self.problem = "pending and masked channels are not known: no event array"
            return
        found = structs.number("evtchn_fifo_domain.num_evtchns", fifo)
        array = structs.member("evtchn_fifo_domain.event_array")
        self._count = min(found or 0, MAX_EVENT_CHANNELS, (array.count or 0) * (PAGE // 4))
        at = fifo + array.offset
        for index in range(-(-self._count // (PAGE // 4))):
            self._words.append(memory.pointer(at + index * memory.word))

    def of(self, port: int) -> tuple[bool | None, bool | None]:
        """Whether a port is pending and whether it is masked.

        A port without an event word is masked for Xen.
        """
        if self.problem is not None and not self._words:
            return None, None
        if port >= self._count:
            return False, True
        address = self._words[port // (PAGE // 4)]
        page = self._reader.page(address) if address else None
        if page is None:
            self.problem = "pending and masked channels are not all known: a page cannot be read"
            return None, None
        at = port % (PAGE // 4) * 4
        word = int.from_bytes(page[at : at + 4], "little")
        return bool(word & _PENDING), bool(word & _MASKED)
