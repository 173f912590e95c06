"""``vm``: the virtual memory areas of processes."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import Any, NamedTuple, NotRequired, TypedDict
from ..linux import panic
from ..linux.address_maps import AddressMap, Area, address_maps
from ..linux.kernel import Kernel
from ..linux.tasks import Task
from ..linux.typed import printing, types
from ..linux.typed.value import Value
from ..output.escape import printable, visible
from ..output.json_types import Count, Hex, Stream
from ..session import Domain
from .contract import Operands, UsageError
from .selection import Selection, select

OPERANDS = Operands("PID|TASK|COMM", "a pid, a task's address in hex, or a command's name")
_PAGE_KIB = 4


class Options(NamedTuple):
    """Whose areas."""

    #: Pids, addresses of tasks in hex, or names.
    operands: Sequence[str] = ()
    #: Every process.
    all: bool = False
    #: The mm_struct in place of the areas.
    mm: bool = False
    #: Only areas whose file or name has this text.
    match: str | None = None
    #: The current task of the shell.
    task: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``vm``."""
    parser.add_argument("--all", action="store_true", help="every process")
    parser.add_argument(
        "-m", "--mm", action="store_true", help="the mm_struct, in place of the areas"
    )
    parser.add_argument(
        "-R", "--match", metavar="TEXT", help="only areas whose file or name has this text"
    )


def run(target: Domain, options: Options = Options()) -> "AddressMaps":
    """Reads the areas of the chosen tasks, by default the panicking one.

    AbsentError if no chosen task exists, or the kernel's types are not known.
    """
    if options.all and options.operands:
        raise UsageError("argument --all: not allowed with a pid or a task")
    if options.mm and options.match is not None:
        raise UsageError("argument -R/--match: not allowed with -m/--mm")
    tasks = target.kernel.tasks()
    chosen, failure = _chosen(target, tasks, options)
    found = address_maps(target.kernel, chosen, tasks)
    shown = [Process(task, found[task.address]) for task in chosen if task.address in found]
    if options.match is not None:
        shown = [Process(task, _matching(one, options.match)) for task, one in shown]
        shown = [one for one in shown if one.map is not None and one.map.areas]
    return AddressMaps(target.id, target.kernel, shown, options.mm, failure)


def _chosen(domain: Domain, tasks: Sequence[Task], options: Options) -> Selection:
    if options.all:
        return Selection([task for task in tasks if task.pid == task.tgid and not task.idle], None)
    operands = options.operands or ([options.task] if options.task is not None else [])
    if operands:
        return select(domain, tasks, operands)
    dying = panic.task(domain.kernel)
    if dying is None:
        raise AbsentError(
            f"{domain.dump.path}: domain {domain.id}: no task has panicked: name a task, or --all"
        )
    return Selection([dying], None)


def _matching(found: AddressMap | None, text: str) -> AddressMap | None:
    if found is None:
        return None
    return found._replace(areas=[area for area in found.areas if text in area.name])


class Process(NamedTuple):
    """A task and its address map; None without user space."""

    task: Task
    map: AddressMap | None


class AreaJson(TypedDict):
    """A virtual memory area. ``file`` is the struct file, null for anonymous memory."""

    vma: Hex
    start: Hex
    end: Hex
    flags: Hex
    file: Hex | None
    name: str


class MapJson(TypedDict):
    """An address map. The sizes are in KiB; null if they are not known.

    With ``-m`` it has ``mm_struct`` in place of ``areas``.
    """

    mm: Hex
    pgd: Hex
    rss_kib: Count | None
    total_vm_kib: Count | None
    areas: NotRequired[list[AreaJson]]
    mm_struct: NotRequired[Any]


class ProcessJson(TypedDict):
    """The user memory of a task; ``map`` is null without user space."""

    pid: Count
    task: Hex
    comm: str
    map: MapJson | None


class JSON(TypedDict):
    """What ``vm --json`` prints."""

    domain: Count
    tasks: Stream[ProcessJson]


class AddressMaps(NamedTuple):
    """The virtual memory areas of some tasks."""

    domain: int
    kernel: Kernel
    processes: Sequence[Process]
    #: Whether the mm_struct is printed in place of the areas.
    mm: bool
    failure: str | None

    def text(self) -> Iterator[str]:
        """For each task its heading, the sizes, and a line per area, as crash."""
        for i, (task, found) in enumerate(self.processes):
            if i:
                yield ""
            yield (
                f"PID: {task.pid:<6}  TASK: {task.address:x}  CPU: {task.cpu:<2}  "
                f'COMMAND: "{visible(task.comm)}"'
            )
            if self.mm and found is not None:
                yield from map(printable, printing.text(_mm(self.kernel, found)).split("\n"))
                continue
            yield from _sizes(found, self.kernel.word * 2)
            if found is not None and not self.mm:
                yield from _areas(found.areas, self.kernel.word)

    def json(self) -> JSON:
        """The same."""
        return {"domain": self.domain, "tasks": map(self._json, self.processes)}

    def _json(self, process: Process) -> ProcessJson:
        task, found = process
        return {
            "pid": task.pid,
            "task": hex(task.address),
            "comm": task.comm,
            "map": None if found is None else self._map(found),
        }

    def _map(self, found: AddressMap) -> MapJson:
        rss, total = _kib(found)
        shown: MapJson = {
            "mm": hex(found.mm),
            "pgd": hex(found.pgd),
            "rss_kib": rss,
            "total_vm_kib": total,
        }
        if self.mm:
            shown["mm_struct"] = printing.plain(_mm(self.kernel, found))
        else:
            shown["areas"] = [_area(area) for area in found.areas]
        return shown


def _mm(kernel: Kernel, found: AddressMap) -> Value:
    return Value(kernel, types.parse(kernel, "struct mm_struct"), found.mm)


def _kib(found: AddressMap | None) -> tuple[int | None, int | None]:
    """The resident and the total memory."""
    if found is None:
        return 0, 0
    if found.usage is None:
        return None, None
    resident = found.usage.resident
    return None if resident is None else resident * _PAGE_KIB, found.usage.total * _PAGE_KIB


def _sizes(found: AddressMap | None, width: int) -> Iterator[str]:
    rss, total = ("?" if size is None else f"{size}k" for size in _kib(found))
    mm, pgd = ("0", "0") if found is None else (f"{found.mm:x}", f"{found.pgd:x}")
    yield f"{'MM':^{width}}  {'PGD':^{width}}  {'RSS':^6}  {'TOTAL_VM':^8}".rstrip()
    yield f"{mm:^{width}}  {pgd:^{width}}  {rss:^6}  {total:^8}".rstrip()


def _areas(areas: Sequence[Area], word: int) -> Iterator[str]:
    width, user = word * 2, 10 if word == 8 else 8
    start, end = (f"{'':{(user - len(name) + 1) // 2}}{name}" for name in ("START", "END"))
    yield f"{'VMA':^{width}} {start:{user}} {end:{user}} FLAGS FILE"
    for area in areas:
        yield (
            f"{area.address:>{width}x} {area.start:>{user}x} {area.end:>{user}x} "
            f"{area.flags:6x} {visible(area.name)}".rstrip()
        )


def _area(area: Area) -> AreaJson:
    return {
        "vma": hex(area.address),
        "start": hex(area.start),
        "end": hex(area.end),
        "flags": hex(area.flags),
        "file": hex(area.file) if area.file else None,
        "name": area.name,
    }
