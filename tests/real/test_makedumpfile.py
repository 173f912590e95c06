"""Real dumps converted by makedumpfile print what the ELF files print."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from xenkdump_fast.cli import main

pytestmark = pytest.mark.real

MAKEDUMPFILE = shutil.which("makedumpfile")
#: Arguments of makedumpfile; "-F" writes to stdout, "--split" to three files.
CONVERSIONS = {
    "zlib": ["-c", "-d", "0"],
    "zlib without zeros": ["-c", "-d", "1"],
    "LZO, filtered": ["-l", "-d", "31"],
    "stored, filtered": ["-d", "31"],
    "ELF, filtered": ["-E", "-d", "31"],
    "flattened": ["-F", "-l", "-d", "31"],
    "flattened ELF": ["-F", "-E", "-d", "31"],
    "split": ["--split", "-l", "-d", "1"],
}
COMMANDS = (["bt", "--all"], ["ps"], ["log"], ["mod"])


def convert(arguments: list[str], vmcore: str, folder: Path) -> Path:
    """Runs makedumpfile; skips where this build of it cannot."""
    if MAKEDUMPFILE is None:
        pytest.skip("makedumpfile is not installed")
    target = folder / "vmcore"
    command = [MAKEDUMPFILE, *arguments, vmcore]
    if "-F" in arguments:
        with target.open("wb") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=False)
    else:
        count = 3 if "--split" in arguments else 1
        names = [str(target), *(f"{target}.{i}" for i in range(1, count))]
        done = subprocess.run([*command, *names], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"makedumpfile {' '.join(arguments)}: {done.stderr.decode()[-200:]}")
    return target


def printed(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_bare_machine(
    conversion: str,
    dump_file: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vmlinux, vmcore = dump_file("vmlinux-6.1.0-56-amd64"), dump_file("bare-x86_64/vmcore")
    converted = convert(CONVERSIONS[conversion], vmcore, tmp_path)
    for command in COMMANDS:
        expected = printed(capsys, [*command, vmlinux, vmcore])
        assert printed(capsys, [*command, vmlinux, str(converted)]) == expected


@pytest.mark.parametrize("name", ["xen417-dom0", "xen417-three-domains"])
def test_xen_host(
    name: str,
    dump_file: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vmlinux, vmcore = dump_file("vmlinux-6.1.0-56-amd64"), dump_file(f"{name}/vmcore")
    whole, without_domains = tmp_path / "whole", tmp_path / "dom0"
    whole.mkdir()
    without_domains.mkdir()
    host = (["domains"], ["vcpus"], ["sys", "--hypervisor"], ["log", "--hypervisor"])
    converted = convert(["-l", "-d", "0"], vmcore, whole)
    for command in host[:2] + host[3:]:
        expected = printed(capsys, [*command, vmcore])
        assert printed(capsys, [*command, str(converted)]) == expected
    # The domains' memory is left out.
    xen_syms = dump_file("xen417-mixed-pcpus/xen-syms")
    converted = convert(["-l", "-X", "--xen-syms", xen_syms], vmcore, without_domains)
    for command in COMMANDS:
        expected = printed(capsys, [*command, vmlinux, vmcore])
        assert printed(capsys, [*command, vmlinux, str(converted)]) == expected
