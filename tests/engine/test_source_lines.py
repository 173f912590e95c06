"""Source lines of programs that the compiler writes, against addr2line."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xenkdump_fast._native import AbsentError, Image

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("gcc", "addr2line", "objcopy")),
    reason="gcc or binutils are not installed",
)

HEADER = """\
static inline __attribute__((always_inline)) int twice(int x)
{
    if (x > 3)
        x++;
    return 2 * x;
}
"""
SOURCE = """\
#include "include/twice.h"
int first(int x)
{
    int sum = twice(x);
    return sum + 1;
}
int second(int x)
{
    return first(x) - twice(x);
}
__attribute__((section(".text.other"))) int _start(void) { return second(5); }
"""


def build(folder: Path, *options: str) -> Path:
    """A program at fixed addresses, compiled in its folder."""
    (folder / "include").mkdir()
    (folder / "include" / "twice.h").write_text(HEADER)
    (folder / "one.c").write_text(SOURCE)
    command = ["gcc", *options, "-O1", "-nostdlib", "-static", "-no-pie", "-o", "program"]
    subprocess.run([*command, "one.c"], cwd=folder, check=True)
    return folder / "program"


def code(image: Image) -> list[int]:
    """Every address of the functions."""
    functions = [symbol for symbol in image.symbols() if symbol.kind == "func"]
    assert len(functions) == 3
    return [at for f in functions for at in range(f.address, f.address + f.size)]


def by_addr2line(path: Path, addresses: list[int]) -> list[tuple[str, int]]:
    text = "\n".join(map(hex, addresses))
    command = ["addr2line", "-e", str(path)]
    lines = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    found = [re.match(r"(.*):(\d+)", line) for line in lines.splitlines()]
    return [(match[1], int(match[2])) for match in found if match]


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("compression", ["none", "zlib", "zlib-gnu", "zstd"])
def test_lines_are_those_of_addr2line(version: int, compression: str, tmp_path: Path) -> None:
    path = build(tmp_path, f"-gdwarf-{version}")
    image = Image(path)
    addresses = code(image)
    expected = by_addr2line(path, addresses)
    assert {Path(file).name for file, _ in expected} == {"one.c", "twice.h"}
    assert {Path(file).is_absolute() for file, _ in expected} == {True}
    packed = tmp_path / "packed"
    command = ["objcopy", f"--compress-debug-sections={compression}", str(path), str(packed)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"objcopy does not know {compression}")
    lines = Image(packed).source_lines()
    assert lines.find(addresses) == expected
    assert not lines.is_incomplete


def test_addresses_with_a_slide_and_outside_of_code(tmp_path: Path) -> None:
    image = Image(build(tmp_path, "-g"))
    addresses = code(image)
    linked = image.source_lines().find(addresses)
    slide = 0x1234000
    assert image.source_lines(slide).find([at + slide for at in addresses]) == linked
    assert image.source_lines(-0x1000).find([at - 0x1000 for at in addresses]) == linked
    assert image.source_lines(slide).find([0, (1 << 64) - 1, addresses[0]]) == [None] * 3
    assert image.source_lines().find([]) == []
    with pytest.raises(OverflowError):
        image.source_lines().find([-1])


def test_a_debug_file_has_the_lines(tmp_path: Path) -> None:
    path = build(tmp_path, "-g")
    expected = Image(path).source_lines().find(code(Image(path)))
    debug, stripped = tmp_path / "debug", tmp_path / "stripped"
    subprocess.run(["objcopy", "--only-keep-debug", path, debug], check=True)
    subprocess.run(["objcopy", "--strip-all", path, stripped], check=True)
    image = Image(stripped)
    with pytest.raises(AbsentError, match="no source lines: no DWARF"):
        image.source_lines()
    image.set_debug(Image(debug))
    assert image.source_lines().find(code(Image(path))) == expected


@pytest.mark.parametrize("keep", ["all", "debug"])
def test_letters_are_those_of_nm(keep: str, tmp_path: Path) -> None:
    source = """
        const int r = 1; static const int s[9] = {2}; int d = 3; static int e[9] = {4}; int b;
        static int c[9]; int f(int i) { return s[i] + e[i] + c[i] + r + d + b; }
        static __attribute__((noinline)) int g(int i) { return c[i]++ + e[i]++; }
        __attribute__((weak)) int w(void) { return g(1); } __attribute__((weak)) int v = 5;
        int _start(void) { return f(1) + w() + v; }
        __asm__(".globl absolute\\nabsolute = 17\\n");
    """
    (tmp_path / "one.c").write_text(source)
    path = tmp_path / "program"
    command = ["gcc", "-O1", "-nostdlib", "-static", "-no-pie", "-o", str(path), "one.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    text = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    expected = {line.split()[2]: line.split()[1] for line in text.splitlines()}
    assert set(expected.values()) >= set("RrDdBbTtWVA")
    if keep == "debug":
        # Sections without bytes: nm itself takes all data for b there.
        subprocess.run(["objcopy", "--only-keep-debug", path, tmp_path / "debug"], check=True)
        path = tmp_path / "debug"
    assert {symbol.name: symbol.letter for symbol in Image(path).symbols()} == expected
