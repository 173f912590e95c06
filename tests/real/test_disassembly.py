"""``dis`` against objdump, for all code of the kernels."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from xenkdump_fast import Domain
from xenkdump_fast._native import disassemble

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed"),
]

#: Bytes of code compared: a few thousand functions.
SIZE = 256 << 10
#: Differences of notation, which docs/commands/dis.md lists: each replaces both texts.
NOTATION = (
    (r"^(?:(?:data16|cs|ds|es|ss) )+", ""),
    (r"%[cdes]s:", ""),
    (r"\(%dx\)", "%dx"),
    (r"%db([0-7])", r"%dr\1"),
    (r",%eiz,1", ""),
    (r"^(push|pop|[ls][gi]dt|ljmp|jmp|call)[ql] ", r"\1 "),
    (r"^(m(?:onitor|wait)x?) .*", r"\1"),
    (r"^repn[ez] ", "repne "),
    (r"^rep[ez]? ", "rep "),
)


def plain(text: str) -> str:
    text = re.sub(r"\s*(#.*|<.*>)?$", "", text)
    text = re.sub(r"\s+", " ", text)
    for pattern, replacement in NOTATION:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize("name", ["xen417-dom0", "bare-i386-pae"])
def test_equals_objdump(name: str, domain: Callable[[str], Domain], tmp_path: Path) -> None:
    kernel = domain(name).kernel
    start = kernel.symbols["_stext"]
    code = kernel.virtual.read(start, SIZE)
    path = tmp_path / "code"
    path.write_bytes(code)
    machine = "i386:x86-64" if kernel.word == 8 else "i386"
    command = ["objdump", "-b", "binary", "-D", "-m", machine, "--no-show-raw-insn"]
    done = subprocess.run(
        [*command, f"--adjust-vma={start:#x}", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^\s*([0-9a-f]+):\t(.*)$", done.stdout, re.MULTILINE)
    expected = {int(address, 16): text for address, text in lines}
    found = {at: text for at, _, text, _ in disassemble(code, start, kernel.word, limit=SIZE)}
    # objdump skips zeros, and shows the bytes of the last instruction, which is cut, one by one.
    common = [at for at in expected if at in found]
    assert len(common) >= len(expected) - 15
    different = [
        (hex(at), expected[at], found[at])
        for at in common
        if plain(expected[at]) != plain(found[at])
    ]
    assert not different[:10]
