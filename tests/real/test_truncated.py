"""A truncated real dump: the results for the tasks that are still complete.

``python -m tests.real.test_truncated vmcore vmlinux`` prints the table for every 5 %.
"""

import contextlib
import io
import json
import mmap
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast
from xenkdump_fast import Domain, cli

PAGE = 4096
FRAME = 0x000F_FFFF_FFFF_F000
PRESENT, LARGE = 1, 0x80
#: The minimum percentage of intact tasks that must be reported. Not all can be: the task list and
#: the pid table, which lead to them, may be truncated.
LEAST = 80


class Walker:
    """An independent page walk that gives the file size needed to read an address."""

    def __init__(self, path: str, root: int | None) -> None:
        assert root is not None
        self.root = root
        with Path(path).open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        (start,) = struct.unpack_from("<Q", self.data, 32)
        size, count = struct.unpack_from("<HH", self.data, 54)
        headers = [struct.unpack_from("<IIQQQQ", self.data, start + i * size) for i in range(count)]
        self.loads: list[tuple[int, int, int]] = [(p[4], p[2], p[5]) for p in headers if p[0] == 1]

    def offset(self, machine: int) -> int | None:
        for paddr, at, filesz in self.loads:
            if paddr <= machine < paddr + filesz:
                return at + machine - paddr
        return None

    def reach(self, address: int) -> int | None:
        """The file size needed to read the page of ``address``."""
        table, furthest = self.root & FRAME, 0
        for shift in (39, 30, 21, 12):
            at = self.offset(table + (address >> shift & 511) * 8)
            if at is None:
                return None
            furthest = max(furthest, at + 8)
            (entry,) = struct.unpack_from("<Q", self.data, at)
            if not entry & PRESENT:
                return None
            table = entry & FRAME
            if shift > 12 and entry & LARGE:
                table = (table & -(1 << shift)) | (address & (1 << shift) - PAGE)
                break
        at = self.offset(table)
        return None if at is None else max(furthest, at + PAGE)


def read(vmlinux: str, vmcore: str) -> tuple[int, dict[int, Any], list[str]]:
    """The output of ``bt --all``: exit status, tasks by address, warnings."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(["bt", "--all", "--json", vmlinux, vmcore])
    tasks = json.loads(out.getvalue()).get("tasks", [])
    return status, {int(task["task"], 16): task for task in tasks}, err.getvalue().splitlines()


def reaches(domain: Domain, path: str, tasks: dict[int, Any]) -> dict[int, int]:
    """The file size that each task and its stack need. Tasks without a stack are omitted."""
    walker = Walker(path, domain.virtual.root)
    found = {}
    for address, task in tasks.items():
        frames = [f for f in task["frames"] or () if f["sp"] and int(f["sp"], 16) >> 63]
        pages = {address & -PAGE, address + 0x1800 & -PAGE, address + 0xC00 & -PAGE}
        pages |= {int(f["sp"], 16) - 8 & -PAGE for f in frames}
        ends = [walker.reach(page) for page in pages]
        if frames and None not in ends:
            found[address] = max(end for end in ends if end is not None)
    return found


def cuts(
    vmcore: str, vmlinux: str, copy: Path, percents: list[int]
) -> Iterator[tuple[int, int, int, int, int, list[str]]]:
    """Per cut: percentage, status, tasks (intact, correct, reported), and warnings."""
    status, intact, _ = read(vmlinux, vmcore)
    assert status == 0
    need = reaches(xenkdump_fast.open(vmcore).domain(0, vmlinux), vmcore, intact)
    size = os.stat(vmcore).st_size
    shutil.copyfile(vmcore, copy)
    for percent in percents:
        length = size * percent // 100
        os.truncate(copy, length)
        status, tasks, warnings = read(vmlinux, str(copy))
        whole = [address for address, end in need.items() if end <= length]
        same = [a for a in whole if a in tasks and tasks[a]["frames"] == intact[a]["frames"]]
        yield percent, status, len(whole), len(same), len(tasks), warnings


@pytest.mark.parametrize("name", ["xen417-dom0", "bare-x86_64"])
def test_intact_tasks_are_reported(
    name: str, dump_file: Callable[[str], str], tmp_path: Path
) -> None:
    vmlinux = dump_file("vmlinux-6.1.0-56-amd64")
    vmcore = dump_file(f"{name}/vmcore")
    for percent, status, whole, same, tasks, warnings in cuts(
        vmcore, vmlinux, tmp_path / "vmcore", [98, 90, 70, 40, 10, 1]
    ):
        assert status in (0, 1), (percent, status)
        assert status == 1 or tasks > 0
        assert warnings, f"truncated to {percent} % without a warning"
        assert len(warnings) == len(set(warnings)) <= 40
        assert same * 100 >= whole * LEAST, f"truncated to {percent} %: {same} of {whole}"


if __name__ == "__main__":
    core, image = sys.argv[1:]
    part = Path(os.environ.get("TMPDIR", "/dev/shm")) / f"truncated-{os.getpid()}"
    try:
        print("length  status  complete  right  reported  warnings")
        for cut, status, whole, same, tasks, warned in cuts(
            core, image, part, list(range(100, 0, -5))
        ):
            print(f"{cut:5} %  {status:6}  {whole:8}  {same:5}  {tasks:8}  {len(warned):8}")
    finally:
        part.unlink(missing_ok=True)
