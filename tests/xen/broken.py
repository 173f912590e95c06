"""Ways in which a host's domain list can be broken, and what must still come out.

Each takes a sound host and gives machine addresses with the bytes to write there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xenkdump_fast.xen.host import HostDomain, XenHost

Changes = Mapping[int, bytes]

#: XenHost's own address space, where nothing is mapped.
NOWHERE = 0xFFFF_83FF_FFFF_0000
#: A domain that no host has.
WILD = 0x4141_4141_4141_4141


@dataclass(frozen=True)
class Break:
    """One way to break a host."""

    name: str
    changes: Callable[[XenHost, list[HostDomain]], Changes]
    #: The domains that only the frame table still leads to.
    lost: tuple[int, ...] = ()
    #: What a warning must say; None where the host has lost nothing that anyone could miss.
    says: str | None = None
    #: Domains whose vCPUs cannot all be sound.
    maimed: tuple[int, ...] = ()


def _machine(xen: XenHost, address: int) -> int:
    found = xen.memory.translate(address)
    assert found is not None
    return found


def _word(xen: XenHost, address: int, value: int) -> Changes:
    return {_machine(xen, address): value.to_bytes(8, "little")}


def _at(xen: XenHost, domain: HostDomain, name: str, value: int, size: int = 8) -> Changes:
    offset = xen.facts.next if name == "next" else xen.layout.get(name)
    assert offset is not None
    return {_machine(xen, domain.address + offset): value.to_bytes(size, "little")}


def _vcpu_slot(xen: XenHost, domain: HostDomain, value: int) -> Changes:
    array = xen.memory.pointer(domain.address + xen.layout.offsets["domain.vcpu"])
    assert array is not None
    return _word(xen, array, value)


def _vcpu_field(xen: XenHost, domain: HostDomain, name: str, value: int, size: int) -> Changes:
    vcpu = domain.vcpus[0].address
    assert vcpu is not None
    return {
        _machine(xen, vcpu + xen.layout.offsets[name]): value.to_bytes(size, "little"),
    }


def _last(domains: list[HostDomain]) -> HostDomain:
    return domains[-1]


def breaks(last: int) -> list[Break]:
    """``last`` is the highest number of a domain."""
    others = tuple(range(1, last + 1))
    return [
        Break(
            "the last domain leads back to the first",
            lambda x, d: _at(x, _last(d), "next", d[0].address),
            says="loops",
        ),
        Break(
            "the first domain leads to itself",
            lambda x, d: _at(x, d[0], "next", d[0].address),
            lost=others,
            says="loops",
        ),
        Break("the list ends after the first", lambda x, d: _at(x, d[0], "next", 0), lost=others),
        Break(
            "the list leads out of memory",
            lambda x, d: _at(x, d[0], "next", NOWHERE),
            lost=others,
            says="leads out of Xen",
        ),
        Break(
            "the list leads out of the address space",
            lambda x, d: _at(x, d[0], "next", WILD),
            lost=others,
            says="leads out of Xen",
        ),
        Break(
            "the list leads to what is no domain",
            # A vCPU of number 0 would pass for a domain; Xen's text does not.
            lambda x, d: _at(x, d[0], "next", x.pcpus[0].registers["rip"] & ~7),
            lost=others,
            says="domain",
        ),
        Break(
            "the list starts nowhere",
            lambda x, _: _word(x, x.facts.head or 0, NOWHERE),
            lost=tuple(range(last + 1)),
            says="leads out of Xen",
        ),
        Break(
            "the list is empty",
            lambda x, _: _word(x, x.facts.head or 0, 0),
            lost=tuple(range(last + 1)),
            says="empty",
        ),
        Break(
            "two domains have one number",
            lambda x, d: {_machine(x, _last(d).address + x.facts.id): b"\0\0"},
            lost=(last,),
            says="number 0",
        ),
        Break(
            "a vCPU without a domain",
            lambda x, d: _vcpu_field(x, _last(d), "vcpu.domain", 0, 8),
            says="vCPU 0",
            maimed=(last,),
        ),
        Break(
            "a vCPU of another domain",
            lambda x, d: _vcpu_field(x, _last(d), "vcpu.domain", d[0].address, 8),
            says="vCPU 0",
            maimed=(last,),
        ),
        Break(
            "a vCPU with the number of another",
            lambda x, d: _vcpu_field(x, _last(d), "vcpu.id", 77, 4),
            says="vCPU 0",
            maimed=(last,),
        ),
        Break(
            "a vCPU out of memory",
            lambda x, d: _vcpu_slot(x, _last(d), NOWHERE),
            says="vCPU 0",
            maimed=(last,),
        ),
        Break(
            "all vCPUs out of memory",
            lambda x, d: _at(x, _last(d), "domain.vcpu", WILD),
            maimed=(last,),
            says="vCPU",
        ),
        Break(
            "more vCPUs than can be",
            lambda x, d: _at(x, _last(d), "domain.max_vcpus", 0xFFFF_FFFF, 4),
            says="max_vcpus",
        ),
        Break(
            "no shared_info",
            lambda x, d: _at(x, _last(d), "domain.shared_info", NOWHERE),
            says="shared_info",
        ),
    ]
