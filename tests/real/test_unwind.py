"""Stacks of real kernels, frame by frame, compared with drgn and ``.debug_frame``."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from xenkdump_fast import _native as native

pytestmark = pytest.mark.real

Path = Callable[[str], str]
Truth = Callable[[str], Any]

# The registers that __switch_to_asm saves below the return address of a sleeping task, lowest first
# (struct inactive_task_frame of Linux 6.1).
INACTIVE = {
    8: ("r15", "r14", "r13", "r12", "rbx", "rbp"),
    4: ("eflags", "esi", "edi", "ebx", "ebp"),
}

DOM0S = [
    ("xen417-dom0", "truth"),
    ("xen417-three-domains", "truth-dom0"),
    ("xen417-three-domains", "truth-dom1"),
    ("xen417-mixed-pcpus", "truth-dom0"),
    ("xen417-mixed-pcpus", "truth-dom1"),
]


@dataclass
class Kernel:
    """A kernel of a dump, and its reference data."""

    truth: Any
    image: native.Image
    symbols: native.Symbols
    virtual: native.AddressSpace
    types: native.Types | None

    def unwinder(self, *methods: str) -> native.Unwinder:
        return native.Unwinder(
            self.image,
            self.symbols,
            self.virtual,
            types=self.types,
            version=self.truth["uts"]["release"],
            methods=methods or None,
        )

    def asleep(self) -> Iterator[tuple[str, dict[str, int], list[dict[str, Any]]]]:
        """Every sleeping task: its name, saved registers and reference frames."""
        for task in self.truth["tasks"]:
            frames = task.get("frames")
            if frames and not frames[0].get("interrupted"):
                pc, sp = int(frames[0]["pc"], 16), int(frames[0]["sp"], 16)
                width = self.image.word
                names = INACTIVE[width]
                low = sp - width * (len(names) + 1)
                registers = {
                    name: self.virtual.word(low + width * i, width) for i, name in enumerate(names)
                }
                bits = "r" if width == 8 else "e"
                yield task["comm"], {**registers, f"{bits}ip": pc, f"{bits}sp": sp}, frames


def xen(dump_file: Path, truth: Truth, folder: str, name: str) -> Kernel:
    known = truth(f"{folder}/{name}.json")
    image = native.Image(dump_file("vmlinux-6.1.0-56-amd64"))
    dump = native.Dump(dump_file(f"{folder}/vmcore"))
    virtual = dump.virtual(int(known["root"], 16), "x86_64")
    return Kernel(known, image, image.symbols(), virtual, image.types())


@pytest.fixture(scope="module")
def bare(dump_file: Path, truth: Truth) -> Kernel:
    known = truth("bare-x86_64/truth.json")
    info = dict(re.findall(r"^(\S+)=(\S+)$", known["vmcoreinfo"], re.MULTILINE))
    image = native.Image(dump_file("vmlinux-6.1.0-56-amd64"))
    root = int(info["SYMBOL(swapper_pg_dir)"], 16) - 0xFFFFFFFF80000000
    dump = native.Dump(dump_file("bare-x86_64/vmcore"))
    virtual = dump.virtual(root + int(info["NUMBER(phys_base)"]), "x86_64")
    slide = int(info["KERNELOFFSET"], 16)
    return Kernel(known, image, image.symbols(slide), virtual, image.types())


@pytest.fixture(scope="module")
def i386(dump_file: Path, truth: Truth) -> Kernel:
    image = native.Image(dump_file("vmlinux-6.1.0-50-686-pae"))
    symbols = image.symbols()
    dump = native.Dump(dump_file("bare-i386-pae/vmcore"))
    virtual = dump.virtual(symbols["swapper_pg_dir"] - 0xC0000000, "x86-pae")
    return Kernel(truth("bare-i386-pae/truth.json"), image, symbols, virtual, None)


def true_frames(frames: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [(int(frame["pc"], 16), int(frame["sp"], 16)) for frame in frames]


def found(backtrace: native.Backtrace) -> list[tuple[int, int]]:
    return [(frame.pc, frame.sp) for frame in backtrace.frames]


@pytest.mark.parametrize(("folder", "name"), DOM0S)
def test_every_sleeping_task_of_a_domain_by_orc(
    dump_file: Path, truth: Truth, folder: str, name: str
) -> None:
    kernel = xen(dump_file, truth, folder, name)
    unwinder = kernel.unwinder()
    assert unwinder.methods[0] == "orc"
    count = 0
    for comm, registers, frames in kernel.asleep():
        backtrace = unwinder.unwind(registers)
        assert found(backtrace) == true_frames(frames), comm
        assert backtrace.stopped is None, comm
        assert not any(frame.guess for frame in backtrace.frames), comm
        assert [frame.user for frame in backtrace.frames] == [
            frame.get("user", False) for frame in frames
        ], comm
        count += 1
    assert count > 100


@pytest.mark.parametrize(("folder", "name"), DOM0S)
def test_every_vcpu_from_the_registers_that_xen_saved(
    dump_file: Path, truth: Truth, folder: str, name: str
) -> None:
    kernel = xen(dump_file, truth, folder, name)
    unwinder = kernel.unwinder()
    for vcpu in kernel.truth["running"] + kernel.truth.get("vcpus", []):
        registers = {name: int(value, 16) for name, value in vcpu["registers"].items()}
        registers.pop("cr3", None)
        backtrace = unwinder.unwind(registers, exact=True)
        assert found(backtrace) == true_frames(vcpu["frames"])
        assert [frame.interrupted for frame in backtrace.frames] == [
            frame["interrupted"] for frame in vcpu["frames"]
        ]
        first, *others = backtrace.frames
        assert first.registers is not None
        assert first.registers["rip"] == first.pc
        # An interrupted frame has its registers; a called one has none.
        for frame in others:
            assert (frame.registers is not None) == frame.interrupted
            assert (frame.registers_at is not None) == frame.interrupted


def test_every_task_under_kaslr(bare: Kernel) -> None:
    unwinder = bare.unwinder()
    count = 0
    for comm, registers, frames in bare.asleep():
        backtrace = unwinder.unwind(registers)
        assert found(backtrace) == true_frames(frames), comm
        assert backtrace.stopped is None, comm
        count += 1
    assert count > 140


def test_code_without_unwind_data_is_unwound_by_the_scan(bare: Kernel, dump_file: Path) -> None:
    """__crash_kexec has no ORC data after machine_kexec, which never returns."""
    (task,) = [
        task
        for task in bare.truth["tasks"]
        if task.get("frames") and task["frames"][0].get("interrupted")
    ]
    dump = native.Dump(dump_file("bare-x86_64/vmcore"))
    notes = [note.fields for note in dump.notes if note.kind == "prstatus"]
    rip = int(task["frames"][0]["pc"], 16)
    (registers,) = [fields["registers"] for fields in notes if fields["registers"]["rip"] == rip]
    backtrace = bare.unwinder().unwind(registers, exact=True)
    assert found(backtrace) == true_frames(task["frames"])
    assert [frame.symbol for frame in backtrace.frames if frame.guess] == ["panic"]


@pytest.mark.parametrize("methods", [("cfi",), ("scan",), ()])
def test_every_task_of_a_32_bit_kernel(i386: Kernel, methods: tuple[str, ...]) -> None:
    unwinder = i386.unwinder(*methods)
    count = 0
    for comm, registers, frames in i386.asleep():
        backtrace = unwinder.unwind(registers)
        kernel = [frame for frame in backtrace.frames if not frame.user]
        assert [(frame.pc, frame.sp) for frame in kernel] == true_frames(frames), comm
        assert backtrace.stopped is None, comm
        # Tasks in a system call have user registers; the others end in ret_from_fork.
        user = backtrace.frames[len(kernel) :]
        assert len(user) == (frames[-1]["symbol"] != "ret_from_fork"), comm
        for frame in user:
            assert frame.registers is not None
            assert frame.registers["cs"] == 0x73
        count += 1
    assert count == 144


def test_a_64_bit_kernel_without_its_tables(bare: Kernel) -> None:
    unwinder = bare.unwinder("fp", "scan")
    assert unwinder.methods == ["fp", "scan"]
    tasks = whole = invented = 0
    for _, registers, frames in bare.asleep():
        scanned = found(unwinder.unwind(registers))
        tasks += 1
        whole += set(true_frames(frames)) <= set(scanned)
        invented += len(set(scanned) - set(true_frames(frames)))
    # Except for the two idle tasks, whose outermost functions were freed or never called.
    assert (whole, tasks) == (146, 148)
    assert invented == 0


@pytest.mark.parametrize("methods", [None, ("fp", "scan")])
def test_backtraces_of_xen_end_at_the_guest(
    dump_file: Path, truth: Truth, methods: tuple[str, ...] | None
) -> None:
    """From kexec_crash_save_cpu to the registers that Xen saved when it was entered."""
    known = truth("xen417-mixed-pcpus/truth-hypervisor.json")
    image = native.Image(dump_file("xen417-mixed-pcpus/xen-syms"))
    symbols = image.symbols()
    dump = native.Dump(dump_file("xen417-mixed-pcpus/vmcore"))
    entered = []
    for pcpu in known["pcpus"]:
        virtual = dump.virtual(int(pcpu["cr3"], 16), "x86_64")
        unwinder = native.Unwinder(image, symbols, virtual, methods=methods)
        registers = {name: int(pcpu[name], 16) for name in ("rip", "rsp", "rbp", "rbx", "cs")}
        backtrace = unwinder.unwind(registers, exact=True)
        assert backtrace.stopped is None
        *frames, guest = backtrace.frames
        assert frames[0].symbol == "kexec_crash_save_cpu"
        entered.append(frames[-1].symbol)
        assert guest.user
        assert guest.registers is not None
        for name, value in pcpu["guest"].items():
            assert guest.registers[name] == int(value, 16), name
    # pCPU 0: an NMI, on its own stack, while emulating a guest's instruction. pCPU 1: a hypercall.
    assert entered == ["handle_exception_saved", "lstar_enter"]
