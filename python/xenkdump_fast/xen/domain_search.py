"""Domains that Xen's variables lead to, for a dump without VMCOREINFO_XEN and without xen-syms.

``hardware_domain`` points to dom0, ``domain_list`` to the first domain, and each bucket of
``domain_hash`` to the last one with its hash: with up to 256 domains, these are all. Which variable
is which is not known. But since Xen 4.0 a struct domain starts a page, and its vCPU 0 points back
to it.
"""

from collections.abc import Iterator
from itertools import islice

from ..limits import MAX_DOMAIN_CANDIDATES, MAX_VCPU_DOMAIN_OFFSET, MAX_XEN_IMAGE
from .memory import PAGE, XenMemory, around, is_in_range


def in_variables(memory: XenMemory, size: int) -> Iterator[int]:
    """Addresses of structs of ``size`` bytes that a variable in Xen's image points to."""
    for candidate in islice(_pointers(memory), MAX_DOMAIN_CANDIDATES):
        if _is_domain(memory, candidate, size):
            yield candidate


def _pointers(memory: XenMemory) -> Iterator[int]:
    """The distinct pointers in Xen's image to pages outside of it."""
    start, end = around(memory.word, memory.probe, MAX_XEN_IMAGE)
    seen: set[int] = set()
    for page in range(start & -PAGE, end, PAGE):
        for value in memory.words(page, PAGE) or ():
            if value % PAGE or value in seen or start <= value < end:
                continue
            seen.add(value)
            if is_in_range(memory.word, value):
                yield value


def _is_domain(memory: XenMemory, address: int, size: int) -> bool:
    """Whether one of the struct's words leads to a vCPU 0 that points back to it."""
    if not memory.is_xen(address):
        return False
    for value in dict.fromkeys(memory.words(address, size // memory.word * memory.word) or ()):
        if not value or value % memory.word or not memory.is_xen(value):
            continue
        # domain.vcpu is a pointer to an array, or the array itself (before 4.0).
        for vcpu in (memory.pointer(value), value):
            if not vcpu or vcpu % memory.word or vcpu == address or not memory.is_xen(vcpu):
                continue
            head = memory.words(vcpu, MAX_VCPU_DOMAIN_OFFSET)
            # vcpu_id is the first member, a number of four bytes.
            if head is not None and address in head and not head[0] & 0xFFFF_FFFF:
                return True
    return False
