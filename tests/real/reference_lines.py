"""What drgn and crash print for a command, as lists of fields."""

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast import Domain

from .conftest import VMLINUX, X86_64
from .test_export import CRASH, dwarf_of, with_dwarf

#: Dumps with type information, and domains.
DOMAINS = [
    ("bare-x86_64", 0),
    ("linux73-bare", 0),
    ("xen417-dom0", 0),
    ("xen417-three-domains", 1),
    ("xen420-pv-pvh", 0),
    ("xen420-pv-pvh", 1),
    ("xen420-pv-pvh", 2),
    ("bare-i386-pae", 0),
]
#: Files beside these: dumps, or a vmlinux and its dump joined by a plus sign, separated by colons.
MORE = [name for name in os.environ.get("XKDUMP_MORE_DUMPS", "").split(":") if name]
#: Those that crash opens without an export.
BY_CRASH = ["bare-x86_64", "xen417-dom0"]
every_domain = pytest.mark.parametrize(
    ("name", "number"), [*DOMAINS, *((name, 0) for name in MORE)], ids=str
)
every_crash = pytest.mark.parametrize("name", [*BY_CRASH, *MORE])
#: Domains of 64 bits, of every kernel here.
every_kernel = pytest.mark.parametrize(
    ("name", "number"),
    [
        ("xen417-dom0", 0),
        ("xen417-three-domains", 0),
        ("xen417-three-domains", 1),
        ("xen420-pv-pvh", 0),
        ("xen420-pv-pvh", 2),
        ("bare-x86_64", 0),
        ("linux73-bare", 0),
    ],
)
#: Dumps of different kernels that crash opens.
every_kernel_of_crash = pytest.mark.parametrize(
    "name", ["bare-x86_64", "xen417-three-domains", "xen420-pv-pvh"]
)


def opened(dump_file: Callable[[str], str], name: str, number: int) -> Domain:
    """A domain of a dump."""
    if name in MORE:
        *vmlinux, path = name.split("+")
        return xk.open(path).domain(0, *vmlinux)
    vmlinux = [dump_file(VMLINUX[name])] if name == "bare-i386-pae" else []
    return xk.open(dump_file(f"{name}/vmcore")).domain(number, *vmlinux)


def fields(lines: Iterable[str]) -> list[list[str]]:
    """The fields of each line that is not empty."""
    return [line.split() for line in lines if line.strip()]


def by_drgn(domain: Domain, command: str) -> list[list[str]]:
    """The fields of the lines that drgn's command prints."""
    pytest.importorskip("drgn", reason="drgn is not installed")
    from xenkdump_fast.bridges.drgn import crash, program_of

    printed = io.StringIO()
    with redirect_stdout(printed):
        crash.run(program_of(domain), [command])
    return fields(printed.getvalue().splitlines())


#: All commands of the tests, for which crash starts once.
COMMANDS = (
    "mount",
    "mount -n 1",
    "net",
    "net -a",
    "foreach net -s",
    "ipcs",
    "dev",
    "dev -d",
    "dev -p",
    "dev -i",
    "swap",
)


def by_crash(
    dump_file: Callable[[str], str], folder: Path, name: str, commands: Sequence[str] = COMMANDS
) -> dict[str, list[list[str]]]:
    """The fields of the lines that crash prints for each of the commands.

    Skips the test without a crash that reads these kernels, or a vmlinux with DWARF.
    """
    program = os.environ.get("XKDUMP_CRASH") or shutil.which("crash")
    if program is None:
        pytest.skip("crash is not installed (XKDUMP_CRASH names another)")
    if version(program) < CRASH:
        pytest.skip(f"crash {version(program)} does not read these kernels")
    if name in MORE:
        debug = dwarf_of(opened(dump_file, name, 0).kernel.image.build_id)
        vmcore = name.rsplit("+", maxsplit=1)[-1]
    else:
        debug = with_dwarf(dump_file(VMLINUX.get(name, X86_64)))
        vmcore = dump_file(f"{name}/vmcore")
    return dict(_run(program, folder, debug, vmcore, tuple(commands)))


@cache
def version(program: str) -> tuple[int, ...]:
    """The version of crash."""
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return tuple(map(int, re.findall(r"crash (\d+)\.(\d+)\.(\d+)", text.stdout)[0]))


@cache
def _run(
    program: str, folder: Path, vmlinux: str, vmcore: str, commands: Sequence[str]
) -> tuple[tuple[str, list[list[str]]], ...]:
    script = folder / "commands"
    script.write_text("\n".join([*commands, "exit", ""]))
    command = [program, "--no_scroll", "-i", str(script), vmlinux, vmcore]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert "crash> exit" in done.stdout, done.stdout[-2000:]
    return tuple(_sections(done.stdout))


def _sections(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    sections = text.split("crash> ")[1:]
    for section in sections[:-1]:  # the last one is that of exit
        name, *lines = section.splitlines()
        yield name.strip(), fields(lines)
