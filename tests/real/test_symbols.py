"""Symbols and sections of real kernels and hypervisors, compared with reference data."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_fast import _native as native

pytestmark = pytest.mark.real

Path = Callable[[str], str]
Truth = Callable[[str], Any]


@pytest.fixture(scope="module")
def kernel(dump_file: Path) -> native.Image:
    return native.Image(dump_file("vmlinux-6.1.0-56-amd64"))


def addresses(text: str) -> dict[str, int]:
    """The symbols of a VMCOREINFO: lines such as ``SYMBOL(_stext)=ffffffff81000000``."""
    found = dict(re.findall(r"^SYMBOL\((\w+)\)=(\w+)$", text, re.MULTILINE))
    # Two are macros for other names. The third is a pointer, whose value is reported.
    del found["node_online_map"], found["swapper_pg_dir"], found["mem_section"]
    return {name: int(address, 16) for name, address in found.items()}


def test_symbols_agree_with_vmcoreinfo(kernel: native.Image, truth: Truth) -> None:
    text = truth("xen417-dom0/truth.json")["vmcoreinfo"]
    assert kernel.build_id is not None
    assert f"BUILD-ID={kernel.build_id}\n" in text
    symbols = kernel.symbols()
    expected = addresses(text)
    assert len(expected) > 10
    for name, address in expected.items():
        assert symbols[name] == address, name


def test_kaslr_moves_all_symbols_except_per_cpu_offsets(kernel: native.Image, truth: Truth) -> None:
    text = truth("bare-x86_64/truth.json")["vmcoreinfo"]
    expected = addresses(text)
    slide = expected["_stext"] - kernel.symbols()["_stext"]
    assert slide > 0
    symbols = kernel.symbols(slide)
    for name, address in expected.items():
        assert symbols[name] == address, name
    assert symbols["__per_cpu_start"] == 0
    assert symbols["current_task"] == kernel.symbols()["current_task"] < symbols["__per_cpu_end"]
    assert symbols["__per_cpu_load"] == kernel.symbols()["__per_cpu_load"] + slide
    # There are no symbols in the per-cpu template, or at link-time addresses.
    assert symbols.lookup(symbols["current_task"]) is None
    assert symbols.lookup(kernel.symbols()["_stext"]) is None


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("bare-x86_64/truth.json", "vmlinux-6.1.0-56-amd64"),
        ("bare-i386-pae/truth.json", "vmlinux-6.1.0-50-686-pae"),
        ("xen417-dom0/truth.json", "vmlinux-6.1.0-56-amd64"),
        ("xen417-mixed-pcpus/truth-dom0.json", "vmlinux-6.1.0-56-amd64"),
        ("xen417-three-domains/truth-dom1.json", "vmlinux-6.1.0-56-amd64"),
    ],
)
def test_every_frame_of_the_image_has_its_name(
    name: str, image: str, dump_file: Path, truth: Truth
) -> None:
    content = truth(name)
    kernel = native.Image(dump_file(image))
    slide = 0
    if stext := re.search(r"SYMBOL\(_stext\)=(\w+)", content.get("vmcoreinfo", "")):
        slide = int(stext[1], 16) - kernel.symbols()["_stext"]
    symbols = kernel.symbols(slide)
    text = range(symbols["_stext"], symbols["_etext"])
    seen = 0
    for task in content["tasks"]:
        for number, frame in enumerate(task["frames"] or []):
            pc, wanted = int(frame["pc"], 0), frame["symbol"]
            if wanted is None or pc not in text:
                continue
            seen += 1
            # A return address belongs to the call before it, which may be its function's last.
            called = number > 0 and not frame.get("interrupted")
            found = {symbols.lookup(pc), symbols.lookup(pc - 1 if called else pc)}
            starts = {symbol.address for symbol in found if symbol is not None}
            assert starts & {symbol.address for symbol in symbols.all(wanted)}, (frame, found)
    assert seen > 100


def test_names_and_addresses_are_inverse(dump_file: Path) -> None:
    for image in ["vmlinux-6.1.0-50-686", "xen-syms-4.17-amd64"]:
        symbols = native.Image(dump_file(image)).symbols(0x1000)
        for name in ["_stext", "panic", "vprintk_common" if "xen" in image else "dump_stack"]:
            symbol = symbols.lookup(symbols[name])
            assert symbol is not None
            assert symbol.address == symbols[name]
            inside = symbols.lookup(symbol.address + max(symbol.size, 1) - 1)
            assert inside is not None
            assert inside.address == symbol.address
        assert symbols.lookup(0) is None
        assert symbols.lookup(symbols["_end"] + 0x1000_0000) is None
        assert "no such symbol" not in symbols


def test_nearest_symbols_agree_with_crash(kernel: native.Image) -> None:
    symbols = kernel.symbols()
    pc = symbols["entry_SYSCALL_64_after_hwframe"] + 8
    covering, nearest = symbols.lookup(pc), symbols.nearest(pc)
    assert covering is not None
    assert nearest is not None
    assert (covering.name, nearest.name) == ("entry_SYSCALL_64", "entry_SYSCALL_64_after_hwframe")


def test_sections_are_read_by_address(kernel: native.Image) -> None:
    sections = {name: (address, size) for name, address, _, size in kernel.sections()}
    address, size = sections[".orc_unwind_ip"]
    content = kernel.section(".orc_unwind_ip")
    assert len(content) == size
    assert kernel.read(address + 4, 8) == content[4:12]
    with pytest.raises(native.AbsentError, match=r"\.text"):
        kernel.section(".text")
    with pytest.raises(native.AbsentError):
        kernel.read(sections[".text"][0], 8)
    with pytest.raises(native.AbsentError):
        kernel.read(address + size - 4, 8)
    with pytest.raises(native.AbsentError, match="no section"):
        kernel.section(".nowhere")
