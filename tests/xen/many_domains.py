"""A host with thousands of domains in a few MiB, each with the maximal max_vcpus."""

import struct

from xenkdump_fast.xen.host import HostDomain, XenHost
from xenkdump_forge import faults
from xenkdump_forge.parts import Parts

from .broken import Changes

PAGE = 4096
#: The number of domains that are added to the list.
COUNT = 4096
CLAIM = 8192
#: Machine addresses, in dom0's memory.
STRUCTS, ARRAY, VCPUS, TABLES = 0x800_0000, 0xA00_0000, 0xB00_0000, 0xA80_0000
#: Bytes between two ``struct domain``, which overlap except for the members that are read.
STRIDE = 160


def small_host(parts: Parts) -> None:
    """Drops unused memory, except where the domains are written to.

    The work is bounded by the size of the dump: a small one tests this in less time.
    """
    memory = parts.core.memory
    sizes = {STRUCTS: STRIDE * COUNT, ARRAY: 8 * CLAIM, VCPUS: PAGE * COUNT, TABLES: 3 * PAGE}
    for start, size in sizes.items():
        for mfn in range(start // PAGE, -(-(start + size) // PAGE)):
            memory.frame(mfn)
    faults.drop_untouched(parts)


def many_domains(xen: XenHost, kind: str) -> Changes:
    """The machine addresses and bytes of the domains. The kinds of their arrays of vCPUs:

    - "empty": one array of zeros for all domains
    - "taken": one array for all domains, whose entries all point to a vCPU of another domain
    - "own": a separate array of one vCPU for each domain; the vCPU's root maps a kernel's range to
      memory without a kernel
    """
    first = xen.domains()
    direct = first[0].address & ~((1 << 36) - 1)
    offsets = xen.layout.offsets
    structs = bytearray(STRIDE * COUNT)
    for i in range(COUNT):
        at = STRIDE * i
        own = VCPUS + PAGE * i if kind == "own" else ARRAY
        struct.pack_into("<H", structs, at + xen.facts.id, len(first) + i)
        struct.pack_into("<I", structs, at + offsets["domain.max_vcpus"], CLAIM)
        struct.pack_into("<Q", structs, at + offsets["domain.vcpu"], direct + own)
        if i + 1 < COUNT:
            following = direct + STRUCTS + at + STRIDE
            struct.pack_into("<Q", structs, at + (xen.facts.next or 0), following)
    changes = {
        _machine(xen, first[-1].address + (xen.facts.next or 0)): struct.pack(
            "<Q", direct + STRUCTS
        ),
        STRUCTS: bytes(structs),
        ARRAY: bytes(8 * CLAIM),
    }
    if kind == "taken":
        changes[ARRAY] = struct.pack("<Q", first[-1].vcpus[0].address) * CLAIM
    if kind == "own":
        changes[VCPUS] = _vcpus(xen, first[0], direct)
        changes |= _tables(xen, first[0])
    return changes


def _machine(xen: XenHost, address: int) -> int:
    found = xen.memory.translate(address)
    assert found is not None
    return found


def _vcpus(xen: XenHost, model: HostDomain, direct: int) -> bytes:
    """A page per domain: an array of one vCPU, and the vCPU, with another vCPU's registers."""
    offsets = xen.layout.offsets
    like = model.vcpus[0].address
    assert like is not None
    registers = xen.memory.read(like + offsets["vcpu.registers"], 200)
    assert registers is not None
    out = bytearray(PAGE * COUNT)
    for i in range(COUNT):
        vcpu = PAGE * i + 64
        struct.pack_into("<Q", out, PAGE * i, direct + VCPUS + vcpu)
        owner = direct + STRUCTS + STRIDE * i
        struct.pack_into("<Q", out, vcpu + offsets["vcpu.domain"], owner)
        struct.pack_into("<Q", out, vcpu + offsets["vcpu.cr3"], TABLES)
        at = vcpu + offsets["vcpu.registers"]
        out[at : at + len(registers)] = registers
    return bytes(out)


def _tables(xen: XenHost, model: HostDomain) -> Changes:
    """A root that maps Xen, and 16 MiB repeatedly to 2 GiB of a kernel's range."""
    root = xen.dump.machine.read(model.vcpus[0].root or 0, PAGE)
    upper, lower = TABLES + PAGE, TABLES + 2 * PAGE
    large = (VCPUS + (i % 8 << 21) | 0xE7 for i in range(512))
    return {
        TABLES: root[:-8] + struct.pack("<Q", upper | 0x67),
        upper: bytes(PAGE - 16) + struct.pack("<2Q", lower | 0x67, lower | 0x67),
        lower: struct.pack("<512Q", *large),
    }
