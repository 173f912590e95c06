"""The vCPUs of a domain: their states and their registers."""

from collections.abc import Sequence

from .._typing import NamedTuple
from ..budget import Budget, BudgetExceededError
from . import frames, hvm
from .domains import DOMID_IDLE
from .infer import RUNSTATES, vcpu_addresses
from .layout import Layout
from .memory import PAGE, XenMemory, root_of
from .pcpus import Pcpu

#: Where Xen saves the registers of a vCPU when another vCPU takes its pCPU.
STRUCT = "struct vcpu"


class XenVcpu(NamedTuple):
    """A virtual CPU."""

    #: Its number within the domain.
    id: int
    #: Xen's address of its ``struct vcpu``; None in the file of a domain.
    address: int | None
    #: The pCPU that it runs on or ran on last.
    pcpu: int | None
    #: "running", "runnable", "blocked", "offline"; "not running" if the reason is not known.
    state: str
    #: Whether a pCPU was running it, possibly one without notes.
    running: bool
    #: Machine address of its page-table root. Of a translated guest it is guest-physical, and None
    #: if paging is off or the control registers are not known.
    root: int | None
    #: The guest's registers; None if it never ran, or if they are not in the dump.
    registers: dict[str, int] | None
    #: Where they were found, in words.
    where: str | None
    #: "pv" or "hvm", by its registers; None without registers.
    kind: str | None = None
    #: Word size of the mode it was in; None without registers.
    word: int | None = None
    warnings: tuple[str, ...] = ()
    #: Newer registers may be on the stack of a pCPU that could not be read.
    stale: bool = False
    #: The control registers of a translated guest, if they are known.
    control: hvm.Control | None = None
    #: The instruction at which a translated guest left for Xen, if the processor recorded it. Xen
    #: moves the one in ``registers`` past an instruction that it emulates, as HLT.
    exit_pc: int | None = None

    @property
    def start(self) -> dict[str, int] | None:
        """The registers from which its stack is unwound."""
        if self.registers is None or self.exit_pc is None:
            return self.registers
        return self.registers | {"rip" if self.word == 8 else "eip": self.exit_pc}

    def narrowed(self) -> "XenVcpu":
        """The same vCPU with 32-bit registers."""
        return self._replace(registers=frames.narrow(self.registers or {}), word=4)


class OnPcpus:
    """The vCPUs that the pCPUs of a host were running."""

    def __init__(self, memory: XenMemory, layout: Layout, pcpus: Sequence[Pcpu]) -> None:
        #: By the address of the vCPU that it was running.
        self.by_vcpu: dict[int, Pcpu] = {}
        #: The vCPU that each pCPU was running, by the pCPU's number.
        self.current: dict[int, int] = {}
        #: By the ``struct domain`` of this vCPU.
        self.by_domain: dict[int, list[Pcpu]] = {}
        #: Those with a guest's registers on their stack, by page-table root.
        self.by_root: dict[int, list[Pcpu]] = {}
        #: Those that were running a guest's code, by number. QEMU numbers CPUs as Xen does, unless
        #: a pCPU is offline: then the stacks of the others tell.
        self.running: dict[int, Pcpu] = {}
        is_ordered = all(i == pcpu.number for i, pcpu in enumerate(pcpus))
        #: Numbers of those of which it is known which guest ran there last.
        self._with_guest: set[int] = set()
        self._idle: set[int] = set()
        back = layout.get("vcpu.domain")
        for pcpu in pcpus:
            # The root identifies the guest whose registers an idle pCPU has.
            is_known = pcpu.guest is None or bool(pcpu.cr3) or not _is_idle(memory, layout, pcpu)
            if pcpu.stack is not None:
                (self._with_guest if is_known else self._idle).add(pcpu.number)
            if pcpu.running is not None and is_ordered:
                self.running[pcpu.number] = pcpu
            if pcpu.vcpu is not None:
                self.by_vcpu.setdefault(pcpu.vcpu, pcpu)
                self.current.setdefault(pcpu.number, pcpu.vcpu)
                owner = None if back is None else memory.pointer(pcpu.vcpu + back)
                if owner is not None:
                    self.by_domain.setdefault(owner, []).append(pcpu)
            if pcpu.guest is not None and pcpu.cr3:
                root = root_of(pcpu.cr3, memory.word)
                self.by_root.setdefault(root, []).append(pcpu)
        self._all_have_guest = 0 < len(self._with_guest) == len(pcpus)

    def is_idle(self, pcpu: int | None) -> bool:
        """Whether a pCPU was idle and has the registers of an unknown guest; with None, any."""
        return bool(self._idle) if pcpu is None else pcpu in self._idle

    def has_guest(self, pcpu: int | None) -> bool:
        """Whether it is known which guest ran last on that pCPU; with None, on every pCPU."""
        return self._all_have_guest if pcpu is None else pcpu in self._with_guest


def _is_idle(memory: XenMemory, layout: Layout, pcpu: Pcpu) -> bool:
    """Whether a pCPU may have been running Xen's idle vCPU."""
    back = layout.get("vcpu.domain")
    owner = None if back is None or pcpu.vcpu is None else memory.pointer(pcpu.vcpu + back)
    number = None if owner is None else memory.number(owner + (layout.get("domain.id") or 0), 2)
    return number is None or number == DOMID_IDLE


def read(
    memory: XenMemory, layout: Layout, on_pcpus: OnPcpus, domain: int, budget: Budget
) -> tuple[list[XenVcpu], list[str]]:
    """The vCPUs of the ``struct domain`` at that address, and warnings.

    The list is incomplete if ``budget``, which all domains share, is exhausted.
    """
    vcpus: list[XenVcpu] = []
    warnings: list[str] = []
    try:
        with memory.charging(budget):
            _read_all(memory, layout, on_pcpus, domain, vcpus, warnings)
    except BudgetExceededError as error:
        warnings.append(f"vCPUs are left out: {error}")
    return vcpus, warnings


def _read_all(
    memory: XenMemory,
    layout: Layout,
    on_pcpus: OnPcpus,
    domain: int,
    vcpus: list[XenVcpu],
    warnings: list[str],
) -> None:
    """Appends the vCPUs of a domain to ``vcpus``."""
    found = _addresses(memory, layout, on_pcpus, domain, warnings)
    owners = _left_on_stacks(memory, layout, on_pcpus, [vcpu for _, vcpu, _ in found])
    for number, address, problem in found:
        if problem is not None:
            warnings.append(f"vCPU {number} at {address:#x}: {problem}")
            if not memory.is_xen(address):
                continue
        vcpu = _read_one(memory, layout, on_pcpus, (number, address), owners.get(address))
        if vcpu.where == STRUCT and not on_pcpus.has_guest(vcpu.pcpu):
            text = f"vCPU {number}'s registers may be stale: its pCPU's stack is not known"
            if on_pcpus.is_idle(vcpu.pcpu):
                text = (
                    f"vCPU {number}'s registers may be stale: its pCPU was idle, and no cr3 tells "
                    "whose registers are on the stack"
                )
            vcpu = vcpu._replace(warnings=(text,), stale=True)
        warnings += vcpu.warnings
        vcpus.append(vcpu if problem is None else vcpu._replace(warnings=(problem,)))


def _addresses(
    memory: XenMemory,
    layout: Layout,
    on_pcpus: OnPcpus,
    domain: int,
    warnings: list[str],
) -> list[tuple[int, int, str | None]]:
    """The vCPUs by max_vcpus if that is plausible, else those that are intact."""
    found = list(vcpu_addresses(memory, layout, domain, None))
    at = layout.get("domain.max_vcpus")
    count = memory.number(domain + at, 4) if at is not None else None
    if count is not None and count != len(found):
        every = list(vcpu_addresses(memory, layout, domain, count))
        good = sum(problem is None for _, _, problem in every)
        if good >= len(found) and len(every) <= 2 * good + 8:
            if not every:
                warnings.append(f"max_vcpus is {count}, but no vCPU can be found")
            found = every
        else:
            warnings.append(f"max_vcpus is {count}, but {len(found)} vCPUs are intact")
    # Those that pCPUs were running are known even without the array.
    known = {address for _, address, _ in found}
    for pcpu in on_pcpus.by_domain.get(domain, ()):
        vcpu = pcpu.vcpu
        if vcpu is None or vcpu in known:
            continue
        number = memory.number(vcpu + (layout.get("vcpu.id") or 0), 4)
        if number is not None:
            found.append((number, vcpu, f"only pCPU {pcpu.number} leads to it"))
    return found


def _read_one(
    memory: XenMemory,
    layout: Layout,
    on_pcpus: OnPcpus,
    vcpu: tuple[int, int],
    left_on: Pcpu | None,
) -> XenVcpu:
    """``vcpu`` is its id and address; ``left_on`` is an idle pCPU that still has its registers on
    the stack.
    """
    number, address = vcpu
    on = on_pcpus.by_vcpu.get(address)
    warnings: tuple[str, ...] = ()
    where: str | None

    def field(name: str, size: int) -> int | None:
        at = layout.get(name)
        return None if at is None else memory.number(address + at, size)

    pcpu = field("vcpu.processor", 4)
    cr3 = field("vcpu.cr3", memory.word)
    if on is not None:
        state, pcpu, cr3 = "running", on.number, on.cr3 or cr3
        frame = on.guest
        where = f"pCPU {on.number}'s {'NT_PRSTATUS' if on.in_guest else 'Xen stack'}"
    else:
        known = field("vcpu.runstate", 4)
        state = RUNSTATES[known] if known is not None and known < len(RUNSTATES) else "not running"
        if left_on is not None:
            frame = left_on.guest
            where = f"pCPU {left_on.number}'s Xen stack, left there when it went idle"
            # Its runstate may still be "running".
            state = "not running" if state == RUNSTATES[0] else state
        elif state == RUNSTATES[0] and _is_next(memory, layout, on_pcpus, pcpu):
            # Its registers were saved when it last left a pCPU.
            state, frame, where = RUNSTATES[1], _saved(memory, layout, address), STRUCT
        elif state == RUNSTATES[0] and pcpu in on_pcpus.running:
            # The processor has loaded the task state segment of a translated guest, which leads to
            # no stack of Xen.
            frame = frames.GuestFrame(dict(on_pcpus.running[pcpu].running or {}), 8, "hvm", 0)
            where = f"pCPU {pcpu}'s NT_PRSTATUS"
        elif state == RUNSTATES[0]:
            # Its registers are on the stack of a pCPU without notes; those in the struct are stale.
            frame, where = None, None
            warnings = (f"vCPU {number} was running, but no pCPU's notes lead to its registers",)
        else:
            frame, where = _saved(memory, layout, address), STRUCT
            base = field("vcpu.gs_base", 8)
            if frame is not None and base and frames.in_kernel(frame.registers):
                frame.registers["gs_base"] = base
    return XenVcpu(
        id=number,
        address=address,
        pcpu=pcpu,
        state=state,
        running=state == RUNSTATES[0],
        root=root_of(cr3, memory.word) if cr3 else None,
        registers=frame.registers if frame else None,
        where=where if frame else None,
        kind=hvm.kind_of(memory, layout, address, frame) if frame else None,
        word=frame.word if frame else None,
        warnings=warnings,
    )


def _is_next(memory: XenMemory, layout: Layout, on_pcpus: OnPcpus, pcpu: int | None) -> bool:
    """Whether a pCPU was about to switch to a vCPU that is already called running.

    Xen changes the states of both vCPUs before it switches: the one that the pCPU was running is
    not called running any more.
    """
    current = None if pcpu is None else on_pcpus.current.get(pcpu)
    at = layout.get("vcpu.runstate")
    if current is None or at is None:
        return False
    state = memory.number(current + at, 4)
    return state is not None and 0 < state < len(RUNSTATES)


def _saved(memory: XenMemory, layout: Layout, vcpu: int) -> frames.GuestFrame | None:
    """The registers in ``arch.user_regs``; None if the vCPU never ran."""
    at = layout.get("vcpu.registers")
    if at is None:
        return None
    words = memory.words(vcpu + at, frames.size(memory.word))
    return None if words is None else frames.read(words, vcpu + at, memory.word)


def translated(memory: XenMemory, layout: Layout, on_pcpus: OnPcpus, vcpu: XenVcpu) -> XenVcpu:
    """A vCPU of a translated guest, with what Xen and the processor keep of it elsewhere."""
    address, registers, exit_pc = vcpu.address, vcpu.registers, None
    if address is None:
        return vcpu._replace(root=None)
    block = None if registers is None else hvm.vmcb(memory, address)
    on = on_pcpus.by_vcpu.get(address)
    if on is not None and on.has_left and registers is not None:
        if block is not None and on.registers.get("rax") == block.address:
            registers = registers | {name: on.registers[name] for name in frames.GENERAL}
            vcpu = vcpu._replace(where=f"pCPU {on.number}'s NT_PRSTATUS and the VMCB")
        else:
            text = (
                f"vCPU {vcpu.id}'s registers are stale: it had just left for Xen, and its VMCB is "
                "not known"
            )
            vcpu = vcpu._replace(warnings=(*vcpu.warnings, text), stale=True)
    control = hvm.read(memory, layout, address)
    if control is None:
        return vcpu._replace(root=None)
    running = None
    if on is None and vcpu.running and vcpu.pcpu is not None:
        running = on_pcpus.running.get(vcpu.pcpu)
    if running is not None:
        # Under shadow paging cr3 is Xen's.
        if block is not None and block.nested_root is not None and running.cr3:
            control = control._replace(cr3=running.cr3)
    elif registers is not None and block is not None:
        control, registers, exit_pc = hvm.complete(control, registers, block)
    found = vcpu._replace(root=control.root, control=control, registers=registers, exit_pc=exit_pc)
    if registers is None:
        return found
    return found._replace(word=8) if control.word == 8 else found.narrowed()


def _left_on_stacks(
    memory: XenMemory, layout: Layout, on_pcpus: OnPcpus, vcpus: Sequence[int]
) -> dict[int, Pcpu]:
    """The vCPUs of a domain whose registers are on the stack of an idle pCPU, with that pCPU.

    A switch to Xen's idle vCPU changes neither cr3 nor the guest's segment bases and saves nothing:
    ``arch.user_regs`` of the vCPU that ran is stale until another guest takes the pCPU. So the
    pCPU's cr3 identifies the owner of the frame on its stack. If several vCPUs of the domain have
    this root, as idle ones do, the kernel's gs_base decides, and then the pCPU that they ran on.
    """
    cr3_at, gs_at = layout.get("vcpu.cr3"), layout.get("vcpu.gs_base")
    processor_at = layout.get("vcpu.processor")
    if cr3_at is None:
        return {}
    own = set(vcpus)
    waiting: dict[int, list[int]] = {}
    for vcpu in vcpus:
        if vcpu not in on_pcpus.by_vcpu and memory.is_xen(vcpu):
            root = root_of(memory.pointer(vcpu + cr3_at) or 0, memory.word)
            if root in on_pcpus.by_root:
                waiting.setdefault(root, []).append(vcpu)
    found: dict[int, Pcpu] = {}
    for root, candidates in waiting.items():
        groups = _Groups()
        for vcpu in candidates:
            base = memory.number(vcpu + gs_at, 8) if gs_at is not None else None
            on = memory.number(vcpu + processor_at, 4) if processor_at is not None else None
            groups.add(vcpu, base, on)
        for pcpu in on_pcpus.by_root[root]:
            if pcpu.guest is None or pcpu.vcpu in own:
                continue
            # Nothing is read here, but thousands of domains may claim the same root.
            memory.charge(PAGE)
            base = pcpu.guest.registers.get("gs_base")
            if gs_at is None or not base or not frames.in_kernel(pcpu.guest.registers):
                base = None
            only = groups.only(base, None)
            if only is None and processor_at is not None:
                only = groups.only(base, pcpu.number)
            if only is not None:
                found[only] = pcpu
                groups.remove(only)
    return found


class _Groups:
    """vCPUs by the kernel's gs_base, by the pCPU they ran on, by both and by neither."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int | None, int | None], set[int]] = {}
        self._keys: dict[int, list[tuple[int | None, int | None]]] = {}

    def add(self, vcpu: int, base: int | None, processor: int | None) -> None:
        keys = {(b, p) for b in (base, None) for p in (processor, None)}
        self._keys[vcpu] = list(keys)
        for key in keys:
            self._groups.setdefault(key, set()).add(vcpu)

    def only(self, base: int | None, processor: int | None) -> int | None:
        """The vCPU of a group that has a single one; None for other groups."""
        group = self._groups.get((base, processor), ())
        return next(iter(group)) if len(group) == 1 else None

    def remove(self, vcpu: int) -> None:
        for key in self._keys.pop(vcpu):
            self._groups[key].discard(vcpu)
