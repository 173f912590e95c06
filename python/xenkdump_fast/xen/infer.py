"""Offsets of the members of Xen's structs, inferred from invariants.

A vcpu points back to its domain. The lists of a shared_info page lead to lists. A vCPU that was
running has the cr3 of its pCPU. The offset on which most domains and vCPUs agree is used; a damaged
struct only loses its own votes.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from .._typing import NamedTuple
from ..limits import (
    MAX_PCPUS,
    MAX_SAMPLED_DOMAINS,
    MAX_SAMPLED_RUNNING,
    MAX_SAMPLED_VCPUS,
    MAX_VCPU_CANDIDATES,
    MAX_VCPU_DOMAIN_OFFSET,
    MAX_VCPU_SIZE,
    MAX_VCPUS,
)
from . import frames, hvm, shared_info
from .layout import Layout
from .memory import PAGE, XenMemory, root_of
from .pcpus import Pcpu

#: Bits of emulation_flags (public ABI, XEN_X86_EMU_*). The devices are those that PVH lacks: HPET,
#: power management, RTC, PIC and VGA.
EMU_LAPIC, EMU_PIT, EMU_DEVICES = 1 << 0, 1 << 8, 0x6E
#: Bits that no cr3 has: it is a machine address with flags (PCID, no-flush).
_NO_ROOT = 0x7FF0_0000_0000_0FF0
#: vcpu_runstate_info.state, in the order of its values (public ABI).
RUNSTATES = ("running", "runnable", "blocked", "offline")


class _Struct(NamedTuple):
    """A struct in memory."""

    address: int
    data: bytes
    words: tuple[int, ...]

    def numbers(self) -> tuple[int, ...]:
        """Its 32-bit numbers, one for each multiple of 4, without one that ends at its end."""
        return struct.unpack_from(f"<{(len(self.data) - 1) // 4}I", self.data)


class _Vcpu(NamedTuple):
    """A struct vcpu, and the pCPU that was running it."""

    struct: _Struct
    number: int
    domain: int
    pcpu: Pcpu | None


def infer(
    memory: XenMemory, domains: Mapping[int, int], pcpus: Sequence[Pcpu], size: int
) -> Layout:
    """The offsets on which most domains agree.

    ``domains`` has the addresses of their structs by id, ``size`` is the size of such a struct.
    """
    found = _Inference(memory, domains, size)
    found.vcpu_array()
    if found.layout.get("domain.vcpu") is None:
        found.layout.warnings.append("no struct vcpu was found that points back to its domain")
        return found.layout
    found.load_vcpus(pcpus)
    found.max_vcpus()
    found.processor()
    found.shared_info()
    found.uuid()
    found.registers()
    found.cr3()
    found.gs_base()
    found.runstate()
    found.emulation()
    found.control_registers()
    return found.layout


class _Inference:
    def __init__(self, memory: XenMemory, domains: Mapping[int, int], size: int) -> None:
        self.memory = memory
        self.word = memory.word
        self.layout = Layout()
        self.domains: list[_Struct] = []
        self.dom0: _Struct | None = None
        for number, address in islice(domains.items(), MAX_SAMPLED_DOMAINS):
            loaded = self.load(address, size)
            if loaded is not None:
                self.domains.append(loaded)
                if number == 0:
                    self.dom0 = loaded
        self.vcpus: list[_Vcpu] = []
        #: How many vCPUs each domain has, by its address.
        self.counts: dict[int, int] = {}

    def load(self, address: int, size: int) -> _Struct | None:
        data = self.memory.struct(address, size)
        return None if data is None else _Struct(address, data, self.memory.split(data))

    def vote(self, name: str, votes: Counter[int], least: int = 1) -> None:
        """Uses the offset with most votes, the lowest of equals, if it has at least ``least``."""
        if votes:
            best = min(votes, key=lambda at: (-votes[at], at))
            if votes[best] >= least:
                self.layout.offsets[name] = best

    # struct domain

    def vcpu_array(self) -> None:
        """domain.vcpu and vcpu.domain: vCPU 0 has the id 0 and points back to its domain."""
        votes: Counter[tuple[bool, int, int]] = Counter()
        for domain in self.domains:
            likely: dict[int, bool] = {}
            for by_pointer, at, vcpu, back in self.point_back(domain):
                if vcpu not in likely and len(likely) < MAX_VCPU_CANDIDATES:
                    likely[vcpu] = self.is_likely_vcpu(vcpu)
                # Other structs point back to their domain too, but have no guest's registers.
                votes[by_pointer, at, back] += 1 + 9 * likely.get(vcpu, False)
        if votes:
            best = min(votes, key=lambda key: (-votes[key], key[1], not key[0]))
            self.layout.vcpu_by_pointer = best[0]
            self.layout.offsets |= {"domain.vcpu": best[1], "vcpu.domain": best[2], "vcpu.id": 0}

    def point_back(self, domain: _Struct) -> Iterator[tuple[bool, int, int, int]]:
        """Candidates for a domain's vCPU 0: whether it was found through an array, the offset of
        domain.vcpu, the vCPU's address, the offset of its pointer back.
        """
        memory, word = self.memory, self.word
        for i, value in enumerate(domain.words):
            if not value or value % word or not memory.is_xen(value):
                continue
            for by_pointer, vcpu in ((True, memory.pointer(value)), (False, value)):
                if vcpu is None or vcpu % word or not memory.is_xen(vcpu):
                    continue
                head = memory.words(vcpu, MAX_VCPU_DOMAIN_OFFSET)
                if head is not None and not head[0] & 0xFFFF_FFFF and domain.address in head:
                    yield by_pointer, i * word, vcpu, head.index(domain.address) * word

    def is_likely_vcpu(self, address: int) -> bool:
        """Whether a struct may hold a guest's registers or a runstate."""
        loaded = self.load(address, MAX_VCPU_SIZE)
        if loaded is None:
            return False
        registers = next(iter(frames.search(loaded.words, self.word)), None)
        return registers is not None or next(_runstates(loaded, self.word), None) is not None

    def load_vcpus(self, pcpus: Sequence[Pcpu]) -> None:
        """Loads the sample of vCPUs: the first of each domain, and some that were running."""
        current = {pcpu.vcpu: pcpu for pcpu in pcpus}
        more = MAX_SAMPLED_RUNNING
        for domain in self.domains:
            found = vcpu_addresses(self.memory, self.layout, domain.address, None)
            intact = [vcpu for _, vcpu, _ in found]
            self.counts[domain.address] = len(intact)
            for number, address in enumerate(intact):
                if number >= MAX_SAMPLED_VCPUS:
                    if address not in current or more == 0:
                        continue
                    more -= 1
                loaded = self.load(address, MAX_VCPU_SIZE)
                if loaded is not None:
                    pcpu = current.get(address)
                    self.vcpus.append(_Vcpu(loaded, number, domain.address, pcpu))

    def max_vcpus(self) -> None:
        """domain.max_vcpus: the number of vCPUs in every domain, at the offset near the array."""
        near = self.layout.offsets["domain.vcpu"]
        votes: Counter[int] = Counter()
        for domain in self.domains:
            count = self.counts[domain.address]
            if count > 0:
                votes.update(i * 4 for i, value in enumerate(domain.numbers()) if value == count)
        most = max(votes.values(), default=0)
        if most:
            best = min((at for at in votes if votes[at] == most), key=lambda at: abs(at - near))
            self.layout.offsets["domain.max_vcpus"] = best

    def shared_info(self) -> None:
        """domain.shared_info: a page whose lists lead to lists, or that has a wall clock."""
        votes: Counter[int] = Counter()
        for domain in self.domains:
            for i, value in enumerate(domain.words):
                if not value or value % PAGE or not self.memory.is_xen(value):
                    continue
                page = self.memory.read(value, PAGE)
                if page is not None:
                    votes[i * self.word] += max(0, score_page(self.memory, page)[0])
        self.vote("domain.shared_info", +votes)

    def uuid(self) -> None:
        """domain.handle: a valid UUID (RFC 4122), different in each domain.

        dom0's is all zeros, so that a domU is needed: the toolstack chooses a random one.
        """
        others = [domain for domain in self.domains if domain is not self.dom0]
        votes = Counter(at for domain in others for at in _uuids(domain.data))
        for at in [at for at in votes if votes[at] < len(others)]:
            del votes[at]
        for at in list(votes):
            values = [domain.data[at : at + 16] for domain in others]
            if len(set(values)) != len(values):
                del votes[at]
        if len(votes) > 1:
            votes = self._random_uuids(others, votes)
        if len(votes) == 1:
            self.vote("domain.uuid", votes)

    def _random_uuids(self, others: list[_Struct], votes: Counter[int]) -> Counter[int]:
        """Of several offsets that may be those of UUIDs the one whose UUIDs are random, if any.

        With few domains, bytes in the middle of UUIDs may look like UUIDs, too.
        """
        found = [at for at in votes if all(one.data[at + 6] >> 4 == 4 for one in others)]
        what = f"{len(votes)} offsets in struct domain may be those of UUIDs"
        if len(found) != 1:
            self.layout.warnings.append(f"{what}: the UUIDs of domains are not known")
            return Counter()
        self.layout.warnings.append(
            f"{what}: +{found[0]:#x} is used, as only UUIDs there are random ones (version 4)"
        )
        return Counter({found[0]: votes[found[0]]})

    # struct vcpu

    def processor(self) -> None:
        """vcpu.processor: the number of the pCPU on which it runs or last ran. That pCPU need not
        have notes.
        """

        def fits(vcpu: _Vcpu, at: int) -> bool:
            value = int.from_bytes(vcpu.struct.data[at : at + 4], "little")
            return value == vcpu.pcpu.number if vcpu.pcpu else value < MAX_PCPUS

        # After vcpu_id: on a machine with one pCPU and one vCPU both are 0.
        near = range(4, MAX_VCPU_DOMAIN_OFFSET, 4)
        votes = Counter(at for vcpu in self.vcpus for at in near if fits(vcpu, at))
        self.vote("vcpu.processor", votes, len(self.vcpus))

    def registers(self) -> None:
        """vcpu.arch.user_regs: valid values of a guest's ip, cs, flags, sp and ss.

        PV guests first, which have selectors: hardware keeps those of other guests.
        """
        for kind in ("pv", "hvm"):
            votes: Counter[int] = Counter()
            for vcpu in self.vcpus:
                votes.update(frames.search(vcpu.struct.words, self.word, kind))
            self.vote("vcpu.registers", votes)
            if votes:
                return

    def kinds(self) -> dict[int, str]:
        """The domains that are "pv" or "hvm" (or PVH) according to their registers, by address."""
        found = {}
        at = self.layout.get("vcpu.registers")
        for vcpu in self.vcpus if at is not None else ():
            first = (at or 0) // self.word
            words = vcpu.struct.words[first : first + frames.size(self.word) // self.word]
            frame = frames.read(words, 0, self.word)
            if frame is not None and not (frame.is_ambiguous and vcpu.domain in found):
                found[vcpu.domain] = self.kind_of(vcpu, frame)
        return found

    def kind_of(self, vcpu: _Vcpu, frame: frames.GuestFrame) -> str:
        """ "pv" or "hvm"."""
        return hvm.kind_of(self.memory, self.layout, vcpu.struct.address, frame)

    def emulation(self) -> None:
        """domain.arch.emulation_flags (Xen 4.7 on): a PV dom0 has the PIT only, other PV domains
        have nothing, all others have a local APIC and possibly more.
        """
        kinds = self.kinds()
        if self.dom0 is None or kinds.get(self.dom0.address) != "pv":
            return

        def fits(domain: _Struct, at: int) -> bool:
            value = int.from_bytes(domain.data[at : at + 4], "little")
            if kinds.get(domain.address) == "pv":
                return value == 0
            return value & EMU_LAPIC == EMU_LAPIC and value < 1 << 12

        others = [domain for domain in self.domains if domain is not self.dom0]
        found = [
            i * 4
            for i, value in enumerate(self.dom0.numbers())
            if value == EMU_PIT and all(fits(domain, i * 4) for domain in others)
        ]
        if len(found) == 1:
            self.layout.offsets["domain.emulation"] = found[0]

    def control_registers(self) -> None:
        """vcpu.arch.hvm.guest_cr: the control registers of translated guests."""
        kinds = self.kinds()
        for vcpu in self.vcpus:
            # Registers in the struct of a vCPU that runs may be those of its reset.
            if vcpu.pcpu is not None and vcpu.pcpu.guest is not None:
                kinds[vcpu.domain] = self.kind_of(vcpu, vcpu.pcpu.guest)
        translated = (vcpu for vcpu in self.vcpus if kinds.get(vcpu.domain) == "hvm")
        found = hvm.infer(vcpu.struct.words for vcpu in translated) if self.word == 8 else None
        if found is not None:
            self.layout.offsets["vcpu.guest_cr"] = found

    def cr3(self) -> None:
        """vcpu.arch.cr3: the cr3 of the pCPU that was running it; of other vCPUs, any root."""
        votes: Counter[int] = Counter()
        for vcpu in self.vcpus:
            words = vcpu.struct.words
            if vcpu.pcpu is not None and vcpu.pcpu.cr3 is not None:
                expected = root_of(vcpu.pcpu.cr3, self.word)
                same = (
                    i for i, at in enumerate(words) if at and root_of(at, self.word) == expected
                )
                # The strongest evidence there is.
                votes.update({i * self.word: 100 for i in same})
                continue
            for i in [i for i, value in enumerate(words) if value > PAGE and not value & _NO_ROOT]:
                root = root_of(words[i], self.word)
                if root and self.memory.is_root(root):
                    votes[i * self.word] += 1
        # ctrlreg[3], the guest's cr3, is at a lower offset and may have the same value.
        best = max(votes, key=lambda at: (votes[at], at), default=None)
        if best is not None and votes[best] > 0:
            self.layout.offsets["vcpu.cr3"] = best

    def gs_base(self) -> None:
        """vcpu.arch.pv.gs_base_kernel: the gs_base of a vCPU that was running its kernel."""
        votes: Counter[int] = Counter()
        for vcpu in self.vcpus:
            guest = vcpu.pcpu.guest if vcpu.pcpu else None
            base = guest.registers.get("gs_base") if guest else None
            if guest is None or not base or not frames.in_kernel(guest.registers):
                continue
            votes.update(i * 8 for i, value in enumerate(vcpu.struct.words) if value == base)
        self.vote("vcpu.gs_base", votes)

    def runstate(self) -> None:
        """vcpu.runstate: a state, and since when; the times in each state add up to no more."""
        votes: Counter[int] = Counter()
        valid: Counter[int] = Counter()
        #: Where a vCPU that a pCPU was running is not called running, by pCPU.
        contradictions: list[tuple[int, int]] = []
        next_ones: set[tuple[int, int | None]] = set()
        for vcpu in self.vcpus:
            for at, state in _runstates(vcpu.struct, self.word):
                valid[at] += 1
                if vcpu.pcpu is None and state == 0:
                    # On a pCPU without notes, the last one of an idle pCPU, or the next one.
                    next_ones.add((at, self._processor(vcpu)))
                elif vcpu.pcpu is None or state == 0:
                    votes[at] += 1
                else:
                    contradictions.append((at, vcpu.pcpu.number))
        # A pCPU that is about to switch has changed the states of both vCPUs already.
        for at, pcpu in contradictions:
            votes[at] -= (at, pcpu) not in next_ones
        # Equal votes are decided by how often the times add up.
        self.vote(
            "vcpu.runstate",
            Counter({at: count << 16 | valid[at] for at, count in (+votes).items()}),
        )

    def _processor(self, vcpu: _Vcpu) -> int | None:
        """The number in vcpu.processor."""
        at = self.layout.get("vcpu.processor")
        data = b"" if at is None else vcpu.struct.data[at : at + 4]
        return int.from_bytes(data, "little") if len(data) == 4 else None


def _uuids(data: bytes) -> Iterator[int]:
    """Offsets at which a valid UUID may be."""
    # Its version and its variant exclude nearly all candidates.
    starts = range(0, len(data) - 15, 4)
    for at in [at for at in starts if data[at + 8] >> 6 == 2 and 1 <= data[at + 6] >> 4 <= 5]:
        value = data[at : at + 16]
        # Two adjacent pointers are not a UUID.
        is_pointers = b"\xff\xff\x83" in value or b"\xff\xff\x82" in value
        if len(set(value)) >= 9 and not is_pointers:
            yield at


def _runstates(vcpu: _Struct, word: int) -> Iterator[tuple[int, int]]:
    """Offsets in a vCPU at which a vcpu_runstate_info may be, and its state."""
    # int state; uint64_t state_entry_time, time[4]: 64-bit numbers aligned to 4 on 32-bit x86.
    after = 8 if word == 8 else 4
    words = vcpu.words
    # Most words are zero, and few small ones precede a valid time. On 32 bits a time has two words,
    # and any lower half is valid.
    if word == 8:
        late = [i for i, value in enumerate(words[1:]) if 1000 < value < 1 << 56]
        candidates = [i for i in late if words[i] & 0xFFFF_FFFF <= 3]
    else:
        candidates = [i for i, value in enumerate(words[:-1]) if value & 0xFFFF_FFFF <= 3]
    for i in candidates:
        at, value = i * word, words[i]
        data = vcpu.data[at + after : at + after + 40]
        if len(data) < 40:
            return
        since, *spent = struct.unpack("<5Q", data)
        state = value & 0xFFFF_FFFF
        # Nanoseconds: at least a microsecond, at most two years. A vCPU that runs was offline and
        # runnable before.
        if 1000 < sum(spent) <= since < 1 << 56 and (state != 0 or spent.count(0) <= 2):
            yield at, state


def score_page(memory: XenMemory, page: bytes) -> tuple[int, int]:
    """The evidence that a page is a shared_info, and the guest's word (0: unknown)."""
    best = (0, 0)
    for word in (8, 4):
        info = shared_info.parse(page, word)
        score = shared_info.score(info, memory.frame)
        if score > 0:
            best = max(best, (score * 4, word))
    if best[0] == 0:
        # Xen keeps the wall clock for every guest, an HVM one's too.
        seconds, nanoseconds = shared_info.wallclock(page, memory.word)
        if seconds > 1 << 30 and nanoseconds < 1_000_000_000:
            best = (1, 0)
    return best


def vcpu_addresses(
    memory: XenMemory,
    layout: Layout,
    domain: int,
    count: int | None,
) -> Iterator[tuple[int, int, str | None]]:
    """Id and address of each of a domain's vCPUs, with a description of its damage or None.

    ``count`` is max_vcpus; without it the array ends at its first entry that is no vCPU of the
    domain. An empty slot is no vCPU.
    """
    array = layout.get("domain.vcpu")
    if array is None or layout.get("vcpu.domain") is None:
        return
    start = memory.pointer(domain + array) if layout.vcpu_by_pointer else domain + array
    if start is None:
        return
    slots = MAX_VCPUS if count is None else min(count, MAX_VCPUS)
    for i, vcpu in _slots(memory, start, slots, empty=count is None):
        problem = _problem(memory, layout, vcpu, (i, domain))
        if problem is not None and count is None:
            return
        yield i, vcpu, problem


def _slots(memory: XenMemory, start: int, count: int, *, empty: bool) -> Iterator[tuple[int, int]]:
    """Index and value of each of the ``count`` words from ``start`` on, up to the first that cannot
    be read; zero words only with ``empty``.
    """
    end = start + count * memory.word
    at = start
    while at < end and start % memory.word == 0:
        size = min(end, (at // PAGE + 1) * PAGE) - at
        data = memory.read(at, size)
        if data is None:
            return
        # Thousands of domains may claim the same array of 8192 empty entries.
        if empty or data.count(0) < size:
            for i, word in enumerate(memory.split(data), (at - start) // memory.word):
                if word or empty:
                    yield i, word
        at += size


def _problem(memory: XenMemory, layout: Layout, vcpu: int, expected: tuple[int, int]) -> str | None:
    """What is wrong with a vCPU that should have this id and domain; None if nothing is."""
    number, domain = expected
    if vcpu % memory.word or not memory.is_xen(vcpu):
        return f"its pointer {vcpu:#x} leads out of Xen's memory"
    owner = memory.pointer(vcpu + layout.offsets["vcpu.domain"])
    if owner != domain:
        return f"it belongs to another domain, {owner or 0:#x}"
    own = memory.number(vcpu + (layout.get("vcpu.id") or 0), 4)
    return None if own == number else f"its id is {own}"
