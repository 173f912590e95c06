"""The list of domains, and domains that are missing from a damaged list."""

from collections.abc import Mapping, Sequence, Set

from .._native import Symbols
from .._typing import NamedTuple
from ..budget import BudgetExceededError
from ..limits import (
    MAX_DOMAIN_SEARCH,
    MAX_DOMAIN_SIZE,
    MAX_DOMAINS,
    MAX_VARIABLES_SEARCH,
    MAX_VCPU_DOMAIN_OFFSET,
)
from . import frame_table
from .layout import Layout
from .memory import PAGE, XenMemory, number
from .pcpus import Pcpu

#: Domain ids from here on are Xen's own (DOMID_FIRST_RESERVED).
FIRST_RESERVED = MAX_DOMAINS
#: Their names (public ABI).
DOMID_IDLE = 0x7FFF
RESERVED = {
    0x7FF1: "DOMID_IO",
    0x7FF2: "DOMID_XEN",
    0x7FF4: "DOMID_COW",
    DOMID_IDLE: "DOMID_IDLE",
}
#: Size of a struct domain if SIZE(domain) is missing: since Xen 4.0 it has a page of its own.
_DEFAULT_SIZE = PAGE


class DomainList:
    """The struct domains that were found."""

    def __init__(self) -> None:
        #: Addresses by domain id, ascending.
        self.addresses: dict[int, int] = {}
        #: How each was found.
        self.how: dict[int, str] = {}
        self.warnings: list[str] = []
        #: Estimated number of pages that each owns, by address.
        self.owned: dict[int, int] = {}

    def add(self, identity: int, address: int, how: str) -> bool:
        """Adds a domain unless there is one with this id."""
        if identity in self.addresses:
            return False
        self.addresses[identity] = address
        self.how[identity] = how
        return True


class Facts(NamedTuple):
    """Facts from VMCOREINFO_XEN, or from xen-syms."""

    head: int | None
    next: int | None
    id: int
    size: int
    frames: frame_table.Table | None
    system: tuple[int, ...]

    @classmethod
    def of(cls, text: Mapping[str, str], symbols: Symbols | None, layout: Layout) -> "Facts":
        """``symbols`` and ``layout`` are of xen-syms and used for what the note lacks."""

        def symbol(name: str) -> int | None:
            found = number(text, f"SYMBOL({name})", 16)
            return symbols.get(name) if found is None and symbols is not None else found

        size = number(text, "SIZE(domain)", 10) or _DEFAULT_SIZE
        next_ = number(text, "OFFSET(domain.next_in_list)", 10)
        identity = number(text, "OFFSET(domain.domain_id)", 10)
        return cls(
            head=symbol("domain_list"),
            next=layout.get("domain.next") if next_ is None else next_,
            id=(layout.get("domain.id") or 0) if identity is None else identity,
            size=min(max(size, 64), MAX_DOMAIN_SIZE),
            frames=frame_table.Table.of(
                symbol("frame_table"),
                symbol("max_page"),
                number(text, "SIZE(page_info)", 10),
                number(text, "OFFSET(page_info._domain)", 10),
                number(text, "OFFSET(page_info.count_info)", 10),
            ),
            system=tuple(a for n in ("dom_xen", "dom_io") if (a := symbol(n)) is not None),
        )


def find(memory: XenMemory, facts: Facts, pcpus: Sequence[Pcpu]) -> DomainList:
    """Follows the list, and adds domains that only the vCPUs of pCPUs lead to."""
    found = DomainList()
    _follow(memory, facts, found)
    # Most pCPUs of a large host are idle, and all idle vCPUs have one domain.
    known = set(found.addresses.values())
    try:
        with memory.budget("structs that may be domains", MAX_DOMAIN_SEARCH):
            for pcpu in pcpus:
                owner = _domain_of(memory, facts, pcpu.vcpu, known)
                if owner is not None:
                    known.add(owner)
                    _recover(memory, facts, found, owner, f"domain of pCPU {pcpu.number}'s vCPU")
    except BudgetExceededError as error:
        found.warnings.append(f"domains of the pCPUs' vCPUs may be missing: {error}")
    if facts.head is None or facts.next is None:
        from . import domain_search

        try:
            with memory.budget("Xen's variables that may lead to domains", MAX_VARIABLES_SEARCH):
                for address in domain_search.in_variables(memory, facts.size):
                    _recover(memory, facts, found, address, "target of a variable of Xen")
        except BudgetExceededError as error:
            found.warnings.append(f"domains may be missing: {error}")
        found.addresses = dict(sorted(found.addresses.items()))
    return found


def complete(
    memory: XenMemory, facts: Facts, pcpus: Sequence[Pcpu], found: DomainList
) -> DomainList:
    """Adds the owners of pages: a list that is cut short may end like a complete one."""
    starts = [*found.addresses.values()]
    for pcpu in pcpus:
        starts += [pcpu.vcpu or 0, pcpu.stack[0] if pcpu.stack else 0]
    found.owned = frame_table.owners(memory, facts.frames, starts)
    known = set(found.addresses.values())
    for address in found.owned:
        if address not in known:
            _recover(memory, facts, found, address, "owner of pages in the frame table")
    found.addresses = dict(sorted(found.addresses.items()))
    return found


def _follow(memory: XenMemory, facts: Facts, found: DomainList) -> None:
    if facts.head is None or facts.next is None:
        found.warnings.append("no VMCOREINFO_XEN: the start of the domain list is not known")
        return
    at = memory.pointer(facts.head)
    where = f"domain_list at {facts.head:#x}"
    if at is None:
        found.warnings.append(f"{where} cannot be read")
        return
    seen: set[int] = set()
    last = -1
    while at:
        if at in seen:
            found.warnings.append(f"the domain list loops: {where} leads back to {at:#x}")
            return
        if len(seen) == MAX_DOMAINS:
            found.warnings.append(f"the domain list breaks off: more than {MAX_DOMAINS} domains")
            return
        seen.add(at)
        if at % memory.word or not memory.is_xen(at):
            found.warnings.append(f"the domain list breaks off: {where} leads out of Xen: {at:#x}")
            return
        identity = memory.number(at + facts.id, 2)
        following = memory.pointer(at + facts.next)
        if identity is None or following is None:
            found.warnings.append(
                f"the domain list breaks off: the domain at {at:#x} is incomplete"
            )
            return
        if identity >= FIRST_RESERVED:
            found.warnings.append(
                f"the domain list breaks off: {where} leads to {at:#x}, whose id {identity:#x} is "
                "reserved"
            )
            return
        if identity <= last:
            # Xen keeps the list ordered by id.
            found.warnings.append(
                f"the domain list is out of order: domain {identity} at {at:#x} comes after {last}"
            )
        last = identity
        if not found.add(identity, at, "domain_list"):
            found.warnings.append(f"two domains in the list have the id {identity}")
        where = f"domain {identity}"
        at = following
    if not found.addresses:
        found.warnings.append("the domain list is empty")


def _recover(memory: XenMemory, facts: Facts, found: DomainList, address: int, how: str) -> None:
    """Adds the domain at ``address``, which is not in the list."""
    identity = memory.number(address + facts.id, 2)
    if identity is None or identity >= FIRST_RESERVED:
        return
    if found.add(identity, address, how):
        found.warnings.append(
            f"domain {identity} at {address:#x} is not in the domain list; found as {how}"
        )


def _domain_of(memory: XenMemory, facts: Facts, vcpu: int | None, known: Set[int]) -> int | None:
    """The struct domain that a vCPU points to and that points back to it; None if it is known."""
    head = memory.words(vcpu, MAX_VCPU_DOMAIN_OFFSET) if vcpu is not None else None
    if head is None or not known.isdisjoint(head):
        return None
    # Since Xen 4.0 a struct domain starts a page; the vCPU's vcpu_info is within one.
    for value in sorted(head, key=lambda value: value % PAGE != 0):
        if value == vcpu or value % memory.word or not memory.is_xen(value):
            continue
        words = memory.words(value, facts.size // memory.word * memory.word)
        for pointer in words or ():
            if pointer == vcpu:
                return value
            if pointer % memory.word == 0 and memory.is_xen(pointer):
                array = memory.words(pointer, MAX_VCPU_DOMAIN_OFFSET)
                if array is not None and vcpu in array:
                    return value
    return None


def system(
    memory: XenMemory,
    facts: Facts,
    layout: Layout,
    pcpus: Sequence[Pcpu],
    symbols: Symbols | None,
    warnings: list[str],
) -> dict[int, int]:
    """Addresses of Xen's own domains by their reserved ids, as far as they can be found.

    DOMID_XEN and DOMID_IO by VMCOREINFO_XEN, the idle domain by a pCPU's idle vCPU. Adds to
    ``warnings`` what cannot be read.
    """
    pointers = {at: f"the pointer at {at:#x}" for at in facts.system}
    idle = symbols.get("idle_vcpu") if symbols is not None else None
    back = layout.get("vcpu.domain")
    if back is not None:
        first = memory.pointer(idle) if idle is not None else None
        for vcpu in (*(pcpu.vcpu for pcpu in pcpus), first):
            if vcpu:
                pointers[vcpu + back] = f"the vCPU at {vcpu:#x}"
    lost = []
    addresses: dict[int, None] = {}
    for at, what in pointers.items():
        address = memory.pointer(at)
        if address is None:
            lost.append(what)
        elif address:
            addresses[address] = None
    found = {}
    for address in addresses:
        readable = memory.is_xen(address)
        identity = memory.number(address + facts.id, 2) if readable else None
        if identity is None:
            lost.append(f"the domain at {address:#x}")
        elif identity >= FIRST_RESERVED:
            found[identity] = address
    warnings += (f"Xen's own domains may be missing: {what} cannot be read" for what in lost)
    return found
