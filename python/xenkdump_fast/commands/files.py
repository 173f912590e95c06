"""``files``: the open files of processes."""

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypedDict

from ..linux.files import File, OpenFiles, open_files
from ..linux.tasks import Task
from ..output.escape import visible
from ..output.json_types import Count, Hex, Stream
from ..session import Domain
from . import selection
from .contract import Operands, UsageError

OPERANDS = Operands("PID|TASK|COMM", "a pid, a task's address in hex, or a command's name")


class Options(NamedTuple):
    """Whose files."""

    #: Pids, addresses of tasks in hex, or names.
    operands: Sequence[str] = ()
    #: Every process.
    all: bool = False
    #: Only files whose path, type or descriptor has this text.
    match: str | None = None
    #: The current task of the shell.
    task: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``files``."""
    parser.add_argument("--all", action="store_true", help="every process")
    parser.add_argument(
        "-R",
        "--match",
        metavar="TEXT",
        help="only files whose path has this text, or whose type or number is this",
    )


def run(target: Domain, options: Options = Options()) -> "Files":
    """Reads the files of the chosen tasks, by default the panicking one.

    AbsentError if no chosen task exists, or the kernel's types are not known.
    """
    if options.all and options.operands:
        raise UsageError("argument --all: not allowed with a pid or a task")
    chosen, failure = selection.chosen(target, options.operands, options.task, everyone=options.all)
    found = open_files(target.kernel, chosen)
    shown = [
        Process(task, _matching(found[task.address], options.match))
        for task in chosen
        if task.address in found
    ]
    if options.match is not None:
        shown = [one for one in shown if one.files.files]
    return Files(target.id, target.kernel.word, shown, failure)


def _matching(files: OpenFiles, text: str | None) -> OpenFiles:
    if text is None:
        return files
    kept = [one for one in files.files if text in one.path or text in (one.type, str(one.number))]
    return files._replace(files=kept)


class Process(NamedTuple):
    """A task and its files."""

    task: Task
    files: OpenFiles


class FileJson(TypedDict):
    """An open file. ``type`` is empty if it is not known."""

    fd: Count
    file: Hex
    dentry: Hex
    inode: Hex
    type: str
    path: str


class ProcessJson(TypedDict):
    """The files of a task. ``root`` and ``cwd`` are null if it has none."""

    pid: Count
    task: Hex
    comm: str
    root: str | None
    cwd: str | None
    files: list[FileJson]


class JSON(TypedDict):
    """What ``files --json`` prints."""

    domain: Count
    tasks: Stream[ProcessJson]


class Files(NamedTuple):
    """The open files of some tasks."""

    domain: int
    word: int
    processes: Sequence[Process]
    failure: str | None

    def text(self) -> Iterator[str]:
        """For each task its heading, root and working directory, and a line per file, as crash."""
        width = self.word * 2
        for i, (task, files) in enumerate(self.processes):
            if i:
                yield ""
            yield selection.heading(task)
            if files.root is None and not files.files:
                yield "No open files"
                continue
            yield f"ROOT: {visible(files.root or '')}    CWD: {visible(files.directory or '')}"
            if not files.files:
                yield "No open files"
                continue
            yield (
                f" FD {'FILE':^{width}} {'DENTRY':^{width}} {'INODE':^{width}} TYPE PATH".rstrip()
            )
            for one in files.files:
                yield (
                    f"{one.number:3d} {one.address:{width}x} {one.dentry:{width}x} "
                    f"{one.inode:{width}x} {one.type:4} {visible(one.path)}".rstrip()
                )

    def json(self) -> JSON:
        """The same."""
        return {"domain": self.domain, "tasks": map(_json, self.processes)}


def _json(process: Process) -> ProcessJson:
    task, files = process
    return {
        "pid": task.pid,
        "task": hex(task.address),
        "comm": task.comm,
        "root": files.root,
        "cwd": files.directory,
        "files": [_file(one) for one in files.files],
    }


def _file(one: File) -> FileJson:
    return {
        "fd": one.number,
        "file": hex(one.address),
        "dentry": hex(one.dentry),
        "inode": hex(one.inode),
        "type": one.type,
        "path": one.path,
    }
