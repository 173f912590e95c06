"""Layouts of event channels by what every domain's channels have in common.

The first bucket of a domain is an array of ``struct evtchn`` whose port numbers are their indices.
The order of the members around ``port`` has been the same since Xen 4.4: the state is the word
before it, the union of what a channel is bound to is behind it. Both ends of an interdomain channel
lead to each other, which proves them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

from ..._native import AbsentError
from ..._typing import NamedTuple
from ...limits import MAX_INFERRED_BUCKETS, MAX_SAMPLED_DOMAINS
from ..memory import IMAGE_ALIGN, PAGE, XenMemory
from .grants import leads_back
from .layouts import Inferred, InferredMember, InferredTypes, pointer

#: Sizes of a struct evtchn: 24 to 40 bytes up to 4.5, then aligned to 64.
_SIZES = (24, 32, 40, 48, 64, 128)
#: Ports of all groups with FIFO event channels (EVTCHN_FIFO_NR_CHANNELS).
_PORTS = 1 << 17
#: Bytes behind domain.evtchn_group that have evtchn_port_ops, evtchn_fifo and grant_table.
_NEAR = 128
#: States (ECS_*).
_INTERDOMAIN, _VIRQ, _IPI = 3, 5, 6
#: The default priority of a FIFO event channel, and the lowest (public ABI).
_DEFAULT_PRIORITY, _LOWEST_PRIORITY = 7, 15


class _Array(NamedTuple):
    """Where a domain's first bucket is, and the layout of its structs as far as ports go."""

    #: Offset of domain.evtchn.
    at: int
    size: int
    port: int

    @property
    def per_bucket(self) -> int:
        return PAGE // (1 << (self.size - 1).bit_length())

    @property
    def state(self) -> int:
        """Of the state: in all versions the word before the port."""
        return self.port - 4

    @property
    def union(self) -> int:
        """Of the union, which has a pointer."""
        return -(-(self.port + 4) // 8) * 8


class _Domain(NamedTuple):
    address: int
    data: bytes
    words: tuple[int, ...]


def infer(memory: XenMemory, domains: Mapping[int, int], size: int) -> Inferred:
    """The layout; AbsentError if the dump does not prove one.

    ``domains`` are the ids by the addresses of their structs, which have ``size`` bytes.
    """
    return _Inference(memory, domains, size).run()


class _Inference:
    def __init__(self, memory: XenMemory, domains: Mapping[int, int], size: int) -> None:
        if memory.word != 8:
            raise AbsentError("32-bit versions of Xen are not supported")
        self._memory = memory
        self._ids = domains
        self._domains: list[_Domain] = []
        for address in list(domains)[:MAX_SAMPLED_DOMAINS]:
            data = memory.struct(address, size)
            if data is not None:
                self._domains.append(_Domain(address, data, memory.split(data)))

    def run(self) -> Inferred:
        array = self._array()
        groups = self._groups(array)
        counts = self._counts(array, groups)
        pairs = self._pairs(array)
        if not pairs and not counts:
            raise AbsentError(
                "no channels lead to each other, and no number of channels in struct domain agrees"
            )
        members = {
            "domain.evtchn": pointer(array.at, 8),
            "domain.evtchn_group": groups,
            "evtchn.port": InferredMember(array.port, 4),
            "evtchn.state": InferredMember(array.state, 1),
            "evtchn.u.unbound.remote_domid": InferredMember(array.union, 2),
            "evtchn.u.interdomain.remote_dom": pointer(array.union + 8, 8),
            "evtchn.u.interdomain.remote_port": InferredMember(array.union, 4),
            "evtchn.u.pirq.irq": InferredMember(array.union, 4),
            # 32 bits since 4.15 (43803dc0240f), 16 before.
            "evtchn.u.virq": InferredMember(array.union, 2),
        }
        members |= counts
        members |= self._fifo(groups)
        members |= self._details(array)
        facts = ["ports are the indices of their structs"]
        if pairs:
            ends = "pair leads" if pairs == 1 else "pairs lead"
            facts.append(f"{pairs} {ends} to each other")
        if counts:
            facts.append("the number of channels is that in struct domain")
        evidence = (
            f"{', '.join(facts)}; vCPUs, priorities and channels of Xen itself rest on the order "
            "of members"
        )
        return Inferred(InferredTypes(members, {"struct evtchn": array.size}), evidence)

    def _array(self) -> _Array:
        """Where the arrays are in most domains."""
        votes: Counter[_Array] = Counter()
        for domain in self._domains:
            votes.update(set(self._arrays(domain)))
        if not votes:
            raise AbsentError("no array of structs whose port numbers are their indices")
        # A struct of 64 bytes is not two of 32.
        best = min(votes, key=lambda one: (-votes[one], one))
        if [one for one in votes if votes[one] == votes[best] and one != best]:
            raise AbsentError("more than one array has port numbers that are their indices")
        return best

    def _arrays(self, domain: _Domain) -> Iterator[_Array]:
        memory = self._memory
        for index, value in enumerate(domain.words):
            if value % 8 or not memory.is_xen(value):
                continue
            data = memory.struct(value, PAGE)
            if data is None:
                continue
            for size in _SIZES:
                for port in range(4, size - 3, 4):
                    array = _Array(index * 8, size, port)
                    if self._is_bucket(data, array, 0):
                        yield array

    @staticmethod
    def _is_bucket(data: bytes, array: _Array, first: int) -> bool:
        """Whether a bucket has the ports from ``first`` on."""
        size = array.size
        # Most structs are none: their second entry decides.
        for index in (1, *range(array.per_bucket)):
            at = index * size + array.port
            if data[at : at + 4] != (first + index).to_bytes(4, "little"):
                return False
        return True

    def _bucket(self, domain: int, array: _Array) -> bytes | None:
        """The first bucket of a domain."""
        at = self._memory.pointer(domain + array.at)
        if not at or at % 8 or not self._memory.is_xen(at):
            return None
        data = self._memory.read(at, array.per_bucket * array.size)
        return data if data is not None and self._is_bucket(data, array, 0) else None

    def _entries(self, array: _Array) -> Iterator[tuple[int, int, bytes]]:
        """Domain, port and struct of the channels in the first buckets that are not free."""
        for domain in self._domains:
            data = self._bucket(domain.address, array)
            if data is None:
                continue
            for port in range(array.per_bucket):
                one = data[port * array.size : (port + 1) * array.size]
                if one[array.state]:
                    yield domain.address, port, one

    def _counts(self, array: _Array, groups: InferredMember) -> dict[str, InferredMember]:
        """domain.valid_evtchns and domain.active_evtchns (4.15, and fixes of XSA-344), which are
        behind domain.evtchn_group and max_evtchn_port; empty if the channels do not agree.
        """
        used = Counter(domain for domain, port, _ in self._entries(array) if port)
        valid = groups.offset + groups.size + 4
        for domain in self._domains:
            if self._bucket(domain.address, array) is None:
                continue
            ports = int.from_bytes(domain.data[valid : valid + 4], "little")
            active = int.from_bytes(domain.data[valid + 4 : valid + 8], "little")
            if ports < array.per_bucket or ports % array.per_bucket:
                return {}
            # Channels in further buckets are not counted here.
            if active < used[domain.address] or (ports == array.per_bucket) > (
                active == used[domain.address]
            ):
                return {}
        return {
            "domain.valid_evtchns": InferredMember(valid, 4),
            "domain.active_evtchns": InferredMember(valid + 4, 4),
        }

    def _pairs(self, array: _Array) -> int:
        """How many interdomain channels lead to each other; AbsentError if most do not."""
        ends: dict[tuple[int, int], tuple[int, int]] = {}
        for domain, port, one in self._entries(array):
            if one[array.state] > _IPI:
                raise AbsentError(f"port {port} of domain {self._ids[domain]} has no valid state")
            if one[array.state] == _INTERDOMAIN:
                remote_port = int.from_bytes(one[array.union : array.union + 4], "little")
                remote = int.from_bytes(one[array.union + 8 : array.union + 16], "little")
                ends[domain, port] = remote, remote_port
        known = sum(other in ends and ends[other] == end for end, other in ends.items())
        # A damaged channel, or one beyond the first bucket, proves nothing.
        if known < len(ends) // 2:
            raise AbsentError(
                f"of {len(ends)} channels that may be interdomain, {known} lead to each other"
            )
        return -(-known // 2)

    def _groups(self, array: _Array) -> InferredMember:
        """domain.evtchn_group, which is behind domain.evtchn: tables of the further buckets."""
        count = max(1, _PORTS // (array.per_bucket * (PAGE // 8)))
        start = array.at + 8
        for domain in self._domains:
            first = array.at // 8 + 1
            tables = domain.words[first : first + count]
            for group, table in enumerate(tables):
                if table and not self._is_table(table, array, group):
                    raise AbsentError(
                        f"domain {self._ids[domain.address]}: what is behind domain.evtchn leads "
                        "to no further channels"
                    )
        return InferredMember(start, count * 8, "array", count)

    def _is_table(self, table: int, array: _Array, group: int) -> bool:
        """Whether the first buckets that a table has are those of its ports."""
        memory = self._memory
        words = memory.words(table, PAGE) if table % 8 == 0 and memory.is_xen(table) else None
        if words is None:
            return False
        checked = 0
        for index, bucket in enumerate(words):
            if not bucket or checked == MAX_INFERRED_BUCKETS:
                continue
            checked += 1
            if bucket % 8 or not memory.is_xen(bucket):
                return False
            data = memory.read(bucket, array.per_bucket * array.size)
            first = (group * (PAGE // 8) + index) * array.per_bucket
            if data is not None and not self._is_bucket(data, array, first):
                return False
        return True

    def _fifo(self, groups: InferredMember) -> dict[str, InferredMember]:
        """domain.evtchn_fifo: between evtchn_port_ops, which is in Xen's image, and grant_table."""
        memory = self._memory
        start = (groups.offset + groups.size) // 8
        image = memory.probe // IMAGE_ALIGN
        votes: Counter[int] = Counter()
        for domain in self._domains:
            for at in range(start, min(start + _NEAR // 8, len(domain.words) - 2)):
                ops, fifo, table = domain.words[at : at + 3]
                if ops // IMAGE_ALIGN != image or not memory.is_xen(ops):
                    continue
                if not leads_back(memory, table, domain.address):
                    continue
                if fifo == 0 or self._is_fifo(fifo):
                    votes[at + 1] += 1
        if not votes:
            raise AbsentError("no grant table behind the event channels leads back to its domain")
        at = min(votes, key=lambda at: (-votes[at], at))
        return {
            "domain.evtchn_fifo": pointer(at * 8, 8),
            # Public ABI: a word for each of 2**17 ports, in pages.
            "evtchn_fifo_domain.event_array": InferredMember(0, 1024, "array", 128),
            "evtchn_fifo_domain.num_evtchns": InferredMember(1024, 4),
        }

    def _is_fifo(self, address: int) -> bool:
        """Whether a struct has the number of event-word pages that its number of channels needs."""
        memory = self._memory
        words = memory.words(address, 1032) if memory.is_xen(address) and not address % 8 else None
        if words is None:
            return False
        number = words[128] & 0xFFFF_FFFF
        pages = number // (PAGE // 4)
        filled = words[:pages]
        return (
            number % (PAGE // 4) == 0
            and pages <= 128
            and all(page % PAGE == 0 and memory.is_xen(page) for page in filled)
            and not any(words[pages:128])
        )

    def _details(self, array: _Array) -> dict[str, InferredMember]:
        """The vCPU that is notified, the priority, and whether Xen handles a channel."""
        # 4.15 (43803dc0240f) moved notify_vcpu_id behind the union.
        before, behind = array.state + 2, array.union + 18
        entries = list(self._entries(array))
        per_vcpu = [e for e in entries if e[2][array.state] == _VIRQ and not e[2][array.union]]

        def distinct(at: int) -> int:
            """How many vCPUs the timers of domains are for: each has one of its own."""
            return len({(domain, one[at : at + 2]) for domain, _, one in per_vcpu})

        used = {one[before : before + 2] for _, _, one in entries}
        is_new = len(used) == 1 or distinct(behind) > distinct(before)
        vcpu, priority = (behind, array.union + 17) if is_new else (before, array.union + 16)
        found = {"evtchn.notify_vcpu_id": InferredMember(vcpu, 2)}
        priorities = Counter(one[priority] for _, _, one in entries)
        usual = max(priorities, key=lambda one: priorities[one], default=None)
        if usual == _DEFAULT_PRIORITY and max(priorities) <= _LOWEST_PRIORITY:
            found["evtchn.priority"] = InferredMember(priority, 1)
        # In a debug build the state before the last change is behind the state. Channels of vCPUs
        # are never handled by Xen, and they have been free or unbound.
        kinds = (_VIRQ, _IPI)
        is_debug = any(
            one[array.state + 1] & 7 for _, _, one in entries if one[array.state] in kinds
        )
        consumer = array.state + (2 if is_debug and is_new else 1)
        found["evtchn.xen_consumer"] = InferredMember(consumer, 1, bit_offset=0, bit_size=3)
        return found
