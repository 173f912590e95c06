"""Faults of a host's domain list, and the results that must still be found.

Each takes an intact host and returns machine addresses with the bytes to write there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xenkdump_fast.xen.host import HostDomain, XenHost

Changes = Mapping[int, bytes]

#: An unmapped address in Xen's part of the address space.
NOWHERE = 0xFFFF_83FF_FFFF_0000
#: An address that is not canonical.
WILD = 0x4141_4141_4141_4141


@dataclass(frozen=True)
class Break:
    """A fault of a host."""

    name: str
    changes: Callable[[XenHost, list[HostDomain]], Changes]
    #: The domains that are found through the frame table only.
    lost: tuple[int, ...] = ()
    #: A text in a warning; None if nothing is missing.
    reports: str | None = None
    #: Domains with broken vCPUs.
    damaged: tuple[int, ...] = ()


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
    """The faults; ``last`` is the highest domain id."""
    others = tuple(range(1, last + 1))
    return [
        Break(
            "the last domain leads back to the first",
            lambda x, d: _at(x, _last(d), "next", d[0].address),
            reports="loops",
        ),
        Break(
            "the first domain leads to itself",
            lambda x, d: _at(x, d[0], "next", d[0].address),
            lost=others,
            reports="loops",
        ),
        Break("the list ends after the first", lambda x, d: _at(x, d[0], "next", 0), lost=others),
        Break(
            "the list leads out of memory",
            lambda x, d: _at(x, d[0], "next", NOWHERE),
            lost=others,
            reports="leads out of Xen",
        ),
        Break(
            "the list leads out of the address space",
            lambda x, d: _at(x, d[0], "next", WILD),
            lost=others,
            reports="leads out of Xen",
        ),
        Break(
            "the list leads to memory that is not a domain",
            # Xen's code: a vCPU 0 would look like a domain.
            lambda x, d: _at(x, d[0], "next", x.pcpus[0].registers["rip"] & ~7),
            lost=others,
            reports="domain",
        ),
        Break(
            "the list head points outside memory",
            lambda x, _: _word(x, x.facts.head or 0, NOWHERE),
            lost=tuple(range(last + 1)),
            reports="leads out of Xen",
        ),
        Break(
            "the list is empty",
            lambda x, _: _word(x, x.facts.head or 0, 0),
            lost=tuple(range(last + 1)),
            reports="empty",
        ),
        Break(
            "two domains have one number",
            lambda x, d: {_machine(x, _last(d).address + x.facts.id): b"\0\0"},
            lost=(last,),
            reports="id 0",
        ),
        Break(
            "a vCPU without a domain",
            lambda x, d: _vcpu_field(x, _last(d), "vcpu.domain", 0, 8),
            reports="vCPU 0",
            damaged=(last,),
        ),
        Break(
            "a vCPU of another domain",
            lambda x, d: _vcpu_field(x, _last(d), "vcpu.domain", d[0].address, 8),
            reports="vCPU 0",
            damaged=(last,),
        ),
        Break(
            "a vCPU with the number of another",
            lambda x, d: _vcpu_field(x, _last(d), "vcpu.id", 77, 4),
            reports="vCPU 0",
            damaged=(last,),
        ),
        Break(
            "a vCPU outside memory",
            lambda x, d: _vcpu_slot(x, _last(d), NOWHERE),
            reports="vCPU 0",
            damaged=(last,),
        ),
        Break(
            "all vCPUs outside memory",
            lambda x, d: _at(x, _last(d), "domain.vcpu", WILD),
            damaged=(last,),
            reports="vCPU",
        ),
        Break(
            "more vCPUs than possible",
            lambda x, d: _at(x, _last(d), "domain.max_vcpus", 0xFFFF_FFFF, 4),
            reports="max_vcpus",
        ),
        Break(
            "no shared_info",
            lambda x, d: _at(x, _last(d), "domain.shared_info", NOWHERE),
            reports="shared_info",
        ),
    ]
