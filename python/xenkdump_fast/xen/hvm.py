"""The control registers of a translated guest's vCPU (HVM, PVH).

Xen keeps them as the guest sees them in ``struct hvm_vcpu``: ``guest_cr[5]``, followed by
``guest_efer`` and ``hw_cr[5]`` in every version since 3.2 (b4923c7d99). So without debug
information they are found by their contents. On AMD the VMCB has the rest: ``cs`` and ``ss``, which
Xen does not save.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Sequence

from .._typing import TYPE_CHECKING, NamedTuple
from ..limits import MAX_VCPU_SIZE
from .frames import GuestFrame
from .layout import Layout
from .memory import PAGE, XenMemory

if TYPE_CHECKING:
    from .._native import Paging

_PE, _ET, _PG = 1 << 0, 1 << 4, 1 << 31
#: The bits that cr0, cr4 and efer can have, by the processor manuals.
_CR0_BITS = 0xE005_003F
_CR4_BITS = 0x3_FFFF_FFFF
_EFER_BITS = 0x0030_FD01
_PAE, _LA57 = 1 << 5, 1 << 12
_LME, _LMA = 1 << 8, 1 << 10
#: Machine address bits of a cr3, by the format of the page tables.
_ROOT = {
    "x86": 0xFFFF_F000,
    "x86-pae": 0xFFFF_FFE0,
    "x86_64": 0x000F_FFFF_FFFF_F000,
    "x86_64-la57": 0x000F_FFFF_FFFF_F000,
}
#: Words of guest_cr and guest_efer.
_WORDS = 6
#: Fields of the VMCB (AMD64 Architecture Programmer's Manual, volume 2, appendix B). Control area:
#: the guest's ASID, whether nested paging is on, and the root of the nested page tables.
_ASID, _NESTED, _NESTED_CR3 = 0x58, 0x90, 0xB0
#: State of the guest.
_CS, _SS, _EFER, _CR4, _CR3, _CR0 = 0x410, 0x420, 0x4D0, 0x548, 0x550, 0x558
_RFLAGS, _RIP, _RSP, _RAX, _CR2 = 0x570, 0x578, 0x5D8, 0x5F8, 0x640
#: Set in efer while a guest runs.
_SVME = 1 << 12
#: Bytes of the longest instruction: Xen moves rip past one that it emulates.
_INSTRUCTION = 15


class Control(NamedTuple):
    """The control registers of a vCPU, as the guest sees them."""

    cr0: int
    cr2: int
    cr3: int
    cr4: int
    efer: int

    @property
    def mode(self) -> str:
        """The processor's mode: ``real``, ``protected``, ``pae``, ``long`` or ``long-la57``.

        ``protected`` is without PAE; it may be without paging.
        """
        if not self.cr0 & _PE:
            return "real"
        if self.efer & _LMA:
            return "long-la57" if self.cr4 & _LA57 else "long"
        return "pae" if self.cr0 & _PG and self.cr4 & _PAE else "protected"

    @property
    def word(self) -> int:
        """Word size of the kernel. In long mode user space may have smaller words."""
        return 8 if self.efer & _LMA else 4

    @property
    def paging(self) -> "Paging | None":
        """The format of its page tables; None if paging is off."""
        if not self.cr0 & _PG:
            return None
        found: dict[str, Paging] = {
            "protected": "x86",
            "pae": "x86-pae",
            "long": "x86_64",
            "long-la57": "x86_64-la57",
        }
        return found.get(self.mode)

    @property
    def root(self) -> int | None:
        """The guest's physical address of its page-table root; None if paging is off."""
        return None if self.paging is None else self.cr3 & _ROOT[self.paging]


class Vmcb(NamedTuple):
    """The virtual machine control block of a vCPU on an AMD processor."""

    #: Its machine address.
    address: int
    #: The machine address of the root of the nested page tables; None under shadow paging.
    nested_root: int | None
    #: What the processor saved when it left the guest: ``rip``, ``rsp``, ``rflags``, ``rax``.
    registers: dict[str, int]
    cs: int
    ss: int
    cr2: int
    #: As the guest sees it; under shadow paging the root of Xen's shadow page tables.
    cr3: int


def parse(words: Sequence[int]) -> Control | None:
    """The control registers in ``guest_cr`` and ``guest_efer``; None for impossible values."""
    cr0, cr1, cr2, cr3, cr4, efer = words
    if cr0 & ~_CR0_BITS or not cr0 & _ET or cr1 or cr4 & ~_CR4_BITS or efer & ~_EFER_BITS:
        return None
    is_paged, is_long = bool(cr0 & _PG), bool(efer & _LMA)
    if is_paged and (not cr0 & _PE or not cr3 or cr3 >> 52):
        return None
    # The processor sets LMA if both LME and paging are on.
    if is_long != (is_paged and bool(efer & _LME)) or (is_long and not cr4 & _PAE):
        return None
    return Control(cr0, cr2, cr3, cr4, efer)


def infer(vcpus: Iterable[Sequence[int]]) -> int | None:
    """The offset in ``struct vcpu`` of ``guest_cr``, from the words of translated guests' structs.

    None if no vCPU has paging on, without which the values are not characteristic, or if two
    offsets are equally likely.
    """
    votes: Counter[int] = Counter()
    for words in vcpus:
        for at in range(len(words) - 2 * _WORDS):
            # cr0 alone excludes nearly all offsets.
            if words[at] & _PG and not words[at] & ~_CR0_BITS:
                found = parse(words[at : at + _WORDS])
                if found is not None:
                    # hw_cr[3] is the same cr3, except for a guest under shadow paging.
                    votes[at * 8] += 1 + 3 * (words[at + _WORDS + 3] == found.cr3)
    best = votes.most_common()[:2]
    if not best or (len(best) > 1 and best[0][1] == best[1][1]):
        return None
    return best[0][0]


def read(memory: XenMemory, layout: Layout, vcpu: int) -> Control | None:
    """The control registers of the ``struct vcpu`` at that address; None if they are not known."""
    at = layout.get("vcpu.guest_cr")
    words = None if at is None else memory.words(vcpu + at, _WORDS * 8)
    return None if words is None else parse(words)


def vmcb(memory: XenMemory, vcpu: int) -> Vmcb | None:
    """The VMCB of a vCPU on an AMD processor; None for others.

    ``struct svm_vcpu`` has its virtual and its machine address.
    """
    words = memory.words(vcpu, MAX_VCPU_SIZE) or memory.words(vcpu, MAX_VCPU_SIZE // 2) or ()
    known = set(words)
    for pointer in dict.fromkeys(words):
        if pointer % PAGE or not memory.is_xen(pointer):
            continue
        address = memory.translate(pointer)
        page = memory.read(pointer, PAGE) if address in known else None
        found = None if page is None or address is None else _parse_vmcb(page, address)
        if found is not None:
            return found
    return None


def kind_of(memory: XenMemory, layout: Layout, vcpu: int, frame: GuestFrame) -> str:
    """The kind of the vCPU with these registers: "pv" or "hvm".

    If the selectors do not tell, a translated guest has a VMCB, or the control registers of long
    mode. Those of a PV guest have no efer behind them.
    """
    if not frame.is_ambiguous:
        return frame.kind
    if vmcb(memory, vcpu) is not None:
        return "hvm"
    control = read(memory, layout, vcpu)
    return "pv" if control is None or not control.efer & _LMA else "hvm"


def _parse_vmcb(page: bytes, address: int) -> Vmcb | None:
    """The VMCB in a page; None if the page has impossible values."""
    efer, root = _word(page, _EFER), _word(page, _NESTED_CR3)
    state = (_word(page, _CR0) | _ET, 0, *(_word(page, at) for at in (_CR2, _CR3, _CR4)))
    if not efer & _SVME or not _word(page, _ASID) & 0xFFFF_FFFF:
        return None
    is_nested = bool(_word(page, _NESTED) & 1)
    if is_nested and (not root or root % PAGE or root >> 52):
        return None
    if parse((*state, efer & ~_SVME)) is None:
        return None
    names = {"rip": _RIP, "rsp": _RSP, "rflags": _RFLAGS, "rax": _RAX}
    cs, ss = (struct.unpack_from("<H", page, at)[0] for at in (_CS, _SS))
    return Vmcb(
        address=address,
        nested_root=root if is_nested else None,
        registers={name: _word(page, at) for name, at in names.items()},
        cs=cs,
        ss=ss,
        cr2=_word(page, _CR2),
        cr3=_word(page, _CR3),
    )


def complete(
    control: Control, registers: dict[str, int], block: Vmcb
) -> tuple[Control, dict[str, int], int | None]:
    """The registers of a vCPU with those that are in its VMCB only, and the pc at its exit.

    ``registers`` are those that Xen saved, or that the processor still held behind ``VMRUN``.

    Xen copies ``rip``, ``rsp``, ``rflags``, ``rax`` and cr3 from the VMCB in its exit handler
    (``svm_vmexit_handler``). An NMI that ends the guest, as in the crash of a host, is taken before
    that, when ``rax`` is still the VMCB's address (``VMRUN``). The pc is None if Xen has changed
    the registers since.
    """
    registers = registers | {"cs": block.cs, "ss": block.ss}
    saved = block.registers
    if registers.get("rax") == block.address:
        control = control._replace(cr2=block.cr2)
        if block.nested_root is not None:
            control = control._replace(cr3=block.cr3)
        return control, registers | saved, saved["rip"]
    moved = registers.get("rip", 0) - saved["rip"]
    is_same = 0 <= moved <= _INSTRUCTION and registers.get("rsp") == saved["rsp"]
    return control, registers, saved["rip"] if is_same else None


def _word(page: bytes, at: int) -> int:
    found: int = struct.unpack_from("<Q", page, at)[0]
    return found
