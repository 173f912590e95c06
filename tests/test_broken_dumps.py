"""Synthetic dumps with every known fault: partial answers, warnings of what is missing, no hang.

Every command must end with a documented exit status, printable text and JSON in ASCII.
"""

import contextlib
import io
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from xenkdump_fast import cli
from xenkdump_forge import build, faults
from xenkdump_forge.elf.notes import Note
from xenkdump_forge.parts import Parts

COMMANDS = (
    *("sys", "ps", "bt", "bt --all", "log", "mod", "notes", "check", "domains", "vcpus"),
    "report --text",
)
#: Commands without a vmlinux argument.
ALONE = ("notes", "check", "domains", "vcpus")
KINDS = ("modern", "2006-pae")
PAGE = 4096
#: A name with control characters and invalid UTF-8.
NAME = b"\x1b[2J\r\xff\xc3\x28\x9b\x07\n"


@dataclass(frozen=True)
class Break:
    """A fault of a dump, and the results that the commands must still give."""

    name: str
    do: Callable[[Parts], None]
    #: A text in the warnings or the JSON of some command; None if nothing is missing.
    reports: str | None = None
    #: The minimum fraction of the tasks that must be found.
    tasks: float = 1.0
    #: Whether dom0's kernel is found.
    found: bool = True
    kinds: tuple[str, ...] = KINDS


def doubled_notes(parts: Parts) -> None:
    parts.core.notes = [group * 2 for group in parts.core.notes]


def garbled_note(parts: Parts) -> None:
    """Overwrites the second CPU's registers."""
    groups = [list(notes) for notes in parts.core.notes]
    indices = [(i, j) for i, notes in enumerate(groups) for j, n in enumerate(notes) if n.type == 1]
    i, j = indices[-1]
    noise = random.Random(1).randbytes(len(groups[i][j].desc))
    groups[i][j] = replace(groups[i][j], desc=noise)
    parts.core.notes = groups


def cut_note(parts: Parts) -> None:
    """Makes a descriptor run past the end of its segment."""
    last = parts.core.notes[-1][-1]
    parts.core.notes[-1] = [*parts.core.notes[-1][:-1], replace(last, desc=last.desc[:20])]


def wrong_root(parts: Parts) -> None:
    """Makes Xen's root, the only remaining one, point outside memory. Regression: OverflowError."""

    def broken(note: Note) -> Note:
        if (note.name, note.type) == ("Xen", 0x100_0001):  # CRASH_INFO's xen_phys_start
            return replace(note, desc=note.desc[:-16] + b"\xff" * 8 + note.desc[-8:])
        if (note.name, note.type) == ("Xen", 0x100_0002):  # CRASH_REGS
            return replace(note, desc=bytes(len(note.desc)))
        return note

    parts.core.notes = [[broken(note) for note in notes] for notes in parts.core.notes]


def overwritten_p2m(parts: Parts) -> None:
    """Overwrites a leaf of the frame-list tree."""
    machine, at = (
        parts.kernels[0].guest.machine,
        int(parts.plan["domains"][0]["frame_list_list"], 16),
    )
    for index in (0, 20):
        at = int.from_bytes(machine.read(at * PAGE + index * 8, 8), "little")
    chance = random.Random(2)
    for entry in range(512):
        mfn = chance.randrange(machine.size // PAGE)
        machine.write(at * PAGE + entry * 8, mfn.to_bytes(8, "little"))


def corrupted_stack(parts: Parts) -> None:
    """Overwrites the stacks of three sleeping tasks."""
    kernel = parts.kernels[0]
    for task in [t for t in kernel.tasks if not t.running][5:8]:
        kernel.guest.write(task.stack + 256, random.Random(3).randbytes(kernel.stack_size - 256))


def invalid_names(parts: Parts) -> None:
    """Overwrites the tasks' names, the node name, and a line of the log."""
    kernel = parts.kernels[0]
    for task in kernel.tasks:
        kernel.guest.write(task.view.at("comm"), NAME.ljust(16, b"\0"))
    for text in ("aiko.lab.", "command line"):
        overwrite(parts, text.encode(), NAME[: len(text)])


def overwrite(parts: Parts, old: bytes, new: bytes) -> None:
    """Replaces all occurrences of some bytes in memory."""
    for frame in parts.kernels[0].guest.machine.frames.values():
        at = frame.find(old)
        if at >= 0:
            frame[at : at + len(new)] = new


def wrong_clock(parts: Parts) -> None:
    """Sets the clock to 2^63 s. Regression: ``sys`` failed completely."""
    date = parts.plan["domains"][0]["header"]["date"]
    overwrite(parts, date.to_bytes(8, "little"), (1 << 63).to_bytes(8, "little"))


def without_tasks(parts: Parts) -> None:
    """Removes the frame of the first task after init from the segments."""
    kernel = parts.kernels[0]
    start = kernel.guest.machine_address(kernel.tasks[3].address) & -PAGE
    faults.hole(parts, start, start + PAGE)


def half_excluded(parts: Parts) -> None:
    """Excludes the upper half of the machine's memory."""
    faults.exclude(parts, parts.kernels[0].guest.machine.size // 2 & -PAGE)


BREAKS = [
    Break("only what was touched", faults.touched_only, kinds=("modern",)),
    Break("per-cpu notes", faults.per_cpu_notes, kinds=("modern",)),
    Break("shuffled segments", faults.shuffle_segments, kinds=("modern",)),
    Break("a segment twice", faults.overlap_segments, kinds=("modern",)),
    Break(
        "a segment for each 64 KiB",
        lambda parts: faults.many_segments(parts, 1 << 16),
        kinds=("modern",),
    ),
    Break("notes twice", doubled_notes),
    Break(
        "no CPU's registers",
        lambda parts: faults.drop_notes(parts, "CORE"),
        "registers in struct vcpu may be stale",
        kinds=("modern",),
    ),
    Break(
        "no CPU's registers at all",
        lambda parts: faults.drop_notes(parts, "CORE"),
        "no saved registers",
        kinds=("2006-pae",),
    ),
    Break(
        "no notes at all", lambda parts: parts.core.notes.clear(), "was not found", 0, found=False
    ),
    Break(
        "no notes of Xen's",
        lambda parts: faults.drop_notes(parts, "Xen", "Xen Domanin-0 CR3"),
        "was not found",
        0,
        found=False,
    ),
    Break("a CPU's note is noise", garbled_note, "registers"),
    Break("Xen's root is outside memory", wrong_root, "Xen", 0, kinds=("modern",)),
    Break("a note is cut", cut_note, "no VMCOREINFO_XEN", kinds=("modern",)),
    Break("a page of the P2M is noise", overwritten_p2m, '"different": 512', kinds=("modern",)),
    Break("a task list that loops", faults.loop_task_list, "loops back"),
    Break("a task list that points outside memory", faults.break_task_list, "breaks off"),
    Break("stacks are noise", corrupted_stack),
    Break("invalid names", invalid_names),
    Break("the clock is noise", wrong_clock, "DATE is not known", kinds=("modern",)),
    Break("a page of tasks is in no segment", without_tasks, "in no segment", 0.8),
    Break("half of the memory is excluded", half_excluded, "left out", 0.1, kinds=("modern",)),
    Break("cut to a page", lambda parts: faults.truncate(parts, PAGE), "is cut", 0, found=False),
    Break(
        "cut in the notes",
        lambda parts: faults.truncate(parts, PAGE + 100),
        "runs past the end",
        0,
        found=False,
    ),
]


class Built:
    """A synthetic dump that is built once, then written with each fault."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.parts = build(kind)
        if kind == "2006-pae":
            # Without notes, the kernel is searched for in the whole dump: keep this one small.
            faults.drop_untouched(self.parts)
        self.vmlinux = directory / "vmlinux"
        self.vmlinux.write_bytes(self.parts.vmlinux)
        vmcore = directory / "vmcore"
        self.parts.core.write(vmcore)
        self.intact = Answers(self.vmlinux, vmcore)

    def broken(self, broken: Break, vmcore: Path) -> "Answers":
        """The commands' results on the dump with a fault."""
        with self._restored():
            broken.do(self.parts)
            self.parts.core.write(vmcore)
        return Answers(self.vmlinux, vmcore)

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Restores what a fault changes: memory, its holes, notes and segments."""
        core, memory = self.parts.core, self.parts.core.memory
        frames = {mfn: bytes(frame) for mfn, frame in memory.frames.items()}
        holes = list(memory.holes)
        self.parts.core = replace(core, notes=list(core.notes), segments=[])
        try:
            yield
        finally:
            self.parts.core = core
            memory.frames = {mfn: bytearray(frame) for mfn, frame in frames.items()}
            memory.holes = holes


class Answers:
    """The results of every command on a dump."""

    def __init__(self, vmlinux: Path, vmcore: Path) -> None:
        self.warnings: dict[str, str] = {}
        self.objects: dict[str, Any] = {}
        self.status: dict[str, int] = {}
        for command in COMMANDS:
            files = [str(vmcore)]
            if command not in ALONE:
                files.insert(0, str(vmlinux))
            status, text, errors = self._run([*command.split(), *files])
            assert all(c.isprintable() or c in "\n\t" for c in text + errors), command
            assert status in (0, 1, 3), (command, status, errors)
            assert status == 0 or errors, command
            for path in files:
                errors = errors.replace(path, Path(path).name)
            again, document, _ = self._run([*command.split(), "--json", *files])
            assert again == status
            assert document.isascii()
            self.status[command], self.warnings[command] = status, errors
            found = json.loads(document)
            self.objects[command] = None if "error" in found else found

    def _run(self, argv: list[str]) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main(argv)
        return status, out.getvalue(), err.getvalue()

    def tasks(self, command: str = "ps") -> int:
        document = self.objects[command]
        return len(document["tasks"]) if document else 0


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    return {kind: Built(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "broken"),
    [pytest.param(kind, b, id=f"{kind}-{b.name}") for b in BREAKS for kind in b.kinds],
)
def test_broken(kind: str, broken: Break, built: dict[str, Built], tmp_path: Path) -> None:
    answers, intact = built[kind].broken(broken, tmp_path / "vmcore"), built[kind].intact
    for command in ("ps", "bt --all"):
        assert answers.tasks(command) >= broken.tasks * intact.tasks(command)
    assert (answers.status["sys"] == 0) == broken.found
    if broken.reports is not None:
        texts = [*answers.warnings.values(), *map(json.dumps, answers.objects.values())]
        assert any(broken.reports in text for text in texts), answers.warnings
    elif broken.tasks == 1:
        # Nothing is missing: no warnings beyond those of the intact dump.
        assert answers.warnings == intact.warnings
