"""Source lines of real images, against binutils.

Xen 4.20 has DWARF. That of a kernel is found in ``XKDUMP_DEBUG_PATH``.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import xenkdump_fast as xk
from tests import rendering
from tests.real.test_export import with_dwarf
from xenkdump_fast import Domain
from xenkdump_fast._native import Image
from xenkdump_fast.commands import bt, dis, sym
from xenkdump_fast.commands.source_lines import Line

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in ("readelf", "addr2line")),
        reason="binutils are not installed",
    ),
]

Open = Callable[[str], Domain]
DumpFile = Callable[[str], str]
FUNCTIONS = 200
KERNEL = "vmlinux-6.1.0-56-amd64"


def rows(path: str) -> Iterator[tuple[int, str, int]]:
    """Address, file and line of each row with an address of its own."""
    command = ["readelf", "-W", "--debug-dump=decodedline", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        last: tuple[int, str, int] | None = None
        for text in running.stdout:
            match = re.match(r"(\S+)\s+(\d+|-)\s+0x(\w+)", text)
            if match is None:
                continue
            address = int(match[3], 16)
            if last is not None and last[0] != address:
                yield last
            last = None if match[2] == "-" else (address, match[1], int(match[2]))


def test_every_row_is_that_of_readelf(dump_file: DumpFile) -> None:
    path = dump_file("xen-syms-4.20")
    expected = list(rows(path))
    assert len(expected) > 100_000
    found = Image(path).source_lines().find([address for address, _, _ in expected])
    for (address, name, number), line in zip(expected, found, strict=True):
        shown = None if line is None else (Path(line[0]).name, line[1])
        assert shown == ((name, number) if number else None), hex(address)


@pytest.mark.parametrize("name", ["xen-syms-4.20", KERNEL])
def test_functions_have_the_lines_of_addr2line(name: str, dump_file: DumpFile) -> None:
    path = dump_file(name) if name != KERNEL else with_dwarf(dump_file(name))
    image = Image(path)
    lines = image.source_lines()
    assert not lines.is_incomplete
    functions = [symbol for symbol in image.symbols() if symbol.kind == "func" and symbol.size]
    chosen = random.Random(1).sample(functions, FUNCTIONS)
    addresses = [at for f in chosen for at in range(f.address, f.address + f.size)]
    text = "\n".join(map(hex, addresses))
    command = ["addr2line", "-e", path]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    other_file = 0
    for address, found, shown in zip(
        addresses, lines.find(addresses), done.stdout.splitlines(), strict=True
    ):
        file, number = re.match(r"(.*):(\d+|\?)", shown).groups()  # type: ignore[union-attr]
        assert str(found[1] if found else 0) == number.replace("?", "0"), hex(address)
        other_file += found is not None and found[0] != file
    # binutils names the file of the function in place of that of the row for some functions that
    # macros define; test_every_row_is_that_of_readelf has the files.
    assert other_file < len(addresses) / 100


def test_the_lines_of_a_function_of_xen(dump_file: DumpFile) -> None:
    dump = xk.open(dump_file("xen420-pv-pvh/vmcore"))
    xen = dump.xen(dump_file("xen-syms-4.20"))
    found = dis.run(xen, dis.Options(["do_sched_op"], lines=True))
    assert found.warnings == []
    files = {one.line.file for one in found.instructions if one.line is not None}
    assert "./xen/common/sched/core.c" in files
    assert len(files) > 1
    first = found.instructions[0].line
    text = rendering.text(found).splitlines()
    assert text[0] == str(first)
    (symbol,) = rendering.text(sym.run(xen, sym.Options(["do_sched_op"]))).splitlines()
    assert symbol.endswith(f"(T) do_sched_op {first}")
    plain = rendering.text(bt.run(xen)).splitlines()
    lines = rendering.text(bt.run(xen, bt.Options(lines=True))).splitlines()
    added = [line for line in lines if re.fullmatch(r"    \./xen/\S+: \d+", line)]
    assert len(added) > 4
    assert [line for line in lines if line not in added] == plain


def test_a_kernel_that_kaslr_moved(dump_file: DumpFile, domain: Open) -> None:
    path = with_dwarf(dump_file(KERNEL))
    bare = domain("bare-x86_64")
    assert bare.kernel.location.slide
    assert not any(name == ".debug_line" for name, *_ in bare.kernel.image.sections())
    linked = Image(path)
    at = linked.symbols()["do_exit"]
    (expected,) = linked.source_lines().find([at])
    assert expected is not None
    found = dis.run(bare, dis.Options(["do_exit", "1"], lines=True))
    assert found.instructions[0].line == Line(*expected)
