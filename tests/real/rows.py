"""Rows of text of a command here and of the same command of drgn and of crash."""

import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from xenkdump_fast.session import Domain


def words(lines: Iterable[str]) -> list[list[str]]:
    """The words of each line that is not empty: columns may differ in width."""
    return [line.split() for line in lines if line.split()]


def by_drgn(domain: Domain, command: str) -> list[list[str]]:
    """What drgn's command of that name prints; skips the test without drgn."""
    pytest.importorskip("drgn", reason="drgn is not installed")
    from xenkdump_fast.bridges.drgn import crash, program_of

    out = io.StringIO()
    with redirect_stdout(out):
        crash.run(program_of(domain), [command])
    return words(out.getvalue().splitlines())


def by_crash(vmcore: str, release: str, commands: Sequence[str]) -> dict[str, list[list[str]]]:
    """What crash prints for each command; skips the test without crash or a vmlinux with DWARF."""
    program = os.environ.get("XKDUMP_CRASH") or shutil.which("crash")
    if program is None:
        pytest.skip("crash is not installed (XKDUMP_CRASH names another)")
    folders = os.environ.get("XKDUMP_DEBUG_PATH", "").split(os.pathsep)
    vmlinux = next(
        (path for one in folders if (path := Path(one) / f"vmlinux-{release}").is_file()), None
    )
    if vmlinux is None:
        pytest.skip(f"no vmlinux-{release} with DWARF in XKDUMP_DEBUG_PATH")
    asked = [line for one in commands for line in (f"echo @@ {one}", one)]
    done = subprocess.run(
        [program, "-s", str(vmlinux), os.path.realpath(vmcore)],
        input="\n".join([*asked, "exit"]) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    found: dict[str, list[list[str]]] = {}
    parts = re.split(r"^@@ (.*)$", done.stdout, flags=re.MULTILINE)
    if len(parts) == 1:
        pytest.skip(f"crash cannot open {vmcore}: {done.stdout[-300:]}{done.stderr[-300:]}")
    for command, text in zip(parts[1::2], parts[2::2], strict=True):
        found[command.strip()] = words(text.splitlines())
    return found
