"""Real dumps converted by makedumpfile print what the raw files print.

By default one dump is tested in every format at every dump level, and the others in some formats.
``XKDUMP_MATRIX=all`` tests all of them. A build of makedumpfile reads the dumps of one
architecture, and may lack codecs: ``XKDUMP_MAKEDUMPFILE`` names further builds, separated by ``:``.
The first one that can convert a dump is used.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast import Status
from xenkdump_fast.cli import main

from .conftest import VMLINUX, X86_64
from .copies import PAGE, Copy

pytestmark = pytest.mark.real

MAKEDUMPFILES = [
    *os.environ.get("XKDUMP_MAKEDUMPFILE", "").split(":"),
    *([found] if (found := shutil.which("makedumpfile")) else []),
]
#: Arguments of makedumpfile; "-F" writes to stdout, "--split" to three files.
FORMATS = {
    "stored": [],
    "zlib": ["-c"],
    "LZO": ["-l"],
    "snappy": ["-p"],
    "zstd": ["-z"],
    "ELF": ["-E"],
    "flattened stored": ["-F"],
    "flattened zlib": ["-F", "-c"],
    "flattened LZO": ["-F", "-l"],
    "flattened snappy": ["-F", "-p"],
    "flattened zstd": ["-F", "-z"],
    "flattened ELF": ["-F", "-E"],
    "split": ["--split", "-l"],
}
#: 0 keeps all pages, 1 leaves zeros out, 31 also caches, user pages and free ones. For the last one
#: makedumpfile needs the kernel's VMCOREINFO, which neither dumps of Xen hosts nor QEMU's have.
LEVELS = (0, 1, 31)
WITH_VMCOREINFO = ("bare-x86_64", "bare-i386-pae")
MACHINES = ("bare-x86_64", "bare-i386-pae", "bare-i386")
HOSTS = ("xen417-dom0", "xen417-three-domains")
COMMANDS = (["bt", "--all"], ["ps"], ["log"], ["sys"], ["mod"])
DOMAINS = (["domains"], ["vcpus"], ["log", "--hypervisor"])
#: The name of the file.
FILE = re.compile(r"^ *DUMPFILE: .*\n", re.MULTILINE)
#: Pages that are compared.
SAMPLE = 4096


class Case(NamedTuple):
    """A conversion of a dump."""

    dump: str
    format: str
    level: int
    #: Leave out the domains' memory (-X).
    is_dom0_only: bool = False

    def arguments(self, dump_file: Callable[[str], str]) -> list[str]:
        only_dom0 = ["-X", "--xen-syms", dump_file("xen417-mixed-pcpus/xen-syms")]
        return [
            *FORMATS[self.format],
            *(only_dom0 if self.is_dom0_only else ()),
            "-d",
            str(self.level),
        ]

    def __str__(self) -> str:
        return f"{self.dump}, {self.format}, {self.level}{', -X' * self.is_dom0_only}"


def every_case() -> Iterator[Case]:
    """The matrix."""
    for dump in (*MACHINES, *HOSTS):
        for form in FORMATS:
            for level in LEVELS:
                yield Case(dump, form, level)
                if dump in HOSTS:
                    yield Case(dump, form, level, is_dom0_only=True)


def cases() -> list[Case]:
    """All of it, or one dump in all formats and the others in some."""
    found = list(every_case())
    if os.environ.get("XKDUMP_MATRIX") == "all":
        return found
    own = [case for case in found if case.dump == MACHINES[0]]
    return own + [case for case in found if case.dump != MACHINES[0]][::7]


@pytest.fixture(scope="module")
def raw(
    dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """``raw("bare-i386")``: a dump that makedumpfile can read.

    It takes the program headers to follow the ELF header, whatever e_phoff is: 1.7.2 and 1.7.9,
    get_elf64_phdr(). QEMU writes section headers before them since 7.2. There they are moved.
    """
    moved: dict[str, str] = {}

    def load(name: str) -> str:
        path = dump_file(f"{name}/vmcore")
        if name != "bare-i386":
            return path
        if name not in moved:
            target = tmp_path_factory.mktemp("moved") / "vmcore"
            subprocess.run(["cp", "--sparse=always", path, target], check=True)
            Copy(target).move_program_headers()
            moved[name] = str(target)
        return moved[name]

    return load


def convert(arguments: list[str], vmcore: str, folder: Path) -> Path:
    """Runs makedumpfile; skips where no build of it can convert the dump."""
    target = folder / "vmcore"
    reasons = ["makedumpfile is not installed"]
    for program in filter(None, MAKEDUMPFILES):
        command = [program, *arguments, vmcore]
        for part in folder.glob("vmcore*"):
            part.unlink()
        if "-F" in arguments:
            with target.open("wb") as file:
                done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=False)
        else:
            count = 3 if "--split" in arguments else 1
            names = [str(target), *(f"{target}.{i}" for i in range(1, count))]
            done = subprocess.run([*command, *names], capture_output=True, check=False)
        if done.returncode == 0:
            return target
        reasons.append(f"{program} {' '.join(arguments)}: {done.stderr.decode()[-200:].strip()}")
    pytest.skip(reasons[-1])


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What a command prints, without the name of the file."""
    assert main(arguments) == 0
    return FILE.sub("", capsys.readouterr().out)


def assert_same_pages(case: Case, vmcore: str, converted: str) -> None:
    """What is in both files is equal, and what was left out is reported as excluded."""
    reference, found = xk.open(vmcore), xk.open(converted)
    segments = reference.native.segments
    runs = [np.arange(-(-at // PAGE), (at + size) // PAGE) for at, size, _ in segments]
    rng = np.random.default_rng(1)
    pages = rng.choice(np.unique(np.concatenate(runs)), SAMPLE).astype(np.uint64) * np.uint64(PAGE)
    expected = reference.machine.read_many(pages, PAGE)
    status = np.empty(SAMPLE, np.uint8)
    rows = found.machine.read_many(pages, PAGE, status=status)
    is_held = status == Status.OK
    assert np.array_equal(rows[is_held], expected[is_held])
    assert np.all(is_held | (status == Status.EXCLUDED))
    if case.is_dom0_only:
        return
    if case.level == 0:
        assert np.all(is_held)
    elif case.level == 1:
        # In compressed dumps, makedumpfile keeps one page of zeros for all.
        assert not np.any(expected[~is_held])
    elif case.dump in WITH_VMCOREINFO:
        assert not np.all(is_held)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_prints_the_same(
    case: Case,
    dump_file: Callable[[str], str],
    raw: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vmlinux, vmcore = dump_file(VMLINUX.get(case.dump, X86_64)), raw(case.dump)
    try:
        converted = str(convert(case.arguments(dump_file), vmcore, tmp_path))
        assert_same_pages(case, vmcore, converted)
        commands = [[*command, vmlinux] for command in COMMANDS]
        if case.dump in HOSTS and not case.is_dom0_only:
            commands += [list(command) for command in DOMAINS]
        for command in commands:
            expected = printed(capsys, [*command, vmcore])
            assert printed(capsys, [*command, converted]) == expected, command
    finally:
        # Each is as large as the dump.
        for path in tmp_path.glob("vmcore*"):
            path.unlink()
