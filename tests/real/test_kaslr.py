"""Kernels with KASLR, found without the note that has the offset."""

from collections.abc import Callable

import pytest

from xenkdump_fast import Domain
from xenkdump_fast._native import Dump, Image
from xenkdump_fast.linux.boot import kaslr
from xenkdump_fast.linux.boot.image import link_base
from xenkdump_fast.linux.boot.locate import locate
from xenkdump_fast.linux.boot.roots import Root, Roots

pytestmark = pytest.mark.real

Open = Callable[[str], Domain]
#: CPU_ENTRY_AREA_RO_IDT (arch/x86/include/asm/cpu_entry_area.h): since 4.15 on every x86_64.
IDT = 0xFFFF_FE00_0000_0000


def test_by_the_interrupt_descriptor_table(domain: Open) -> None:
    bare = domain("bare-x86_64")
    slide = bare.kernel.location.slide
    assert slide != 0
    image = bare.kernel.image
    assert kaslr.by_idt(bare.virtual, IDT, image.symbols()) == slide
    assert kaslr.by_idt(bare.virtual, IDT + 16, image.symbols()) is None
    assert kaslr.by_idt(bare.virtual, 0x1000, image.symbols()) is None


def test_by_search_of_memory(domain: Open) -> None:
    bare = domain("bare-x86_64")
    native = Dump(bare.dump.path)
    image = bare.kernel.image
    roots = Roots(native, image, [])
    location = locate(roots, None, [], native.physical(None))
    assert location[:3] == bare.kernel.location[:3]


@pytest.mark.parametrize("name", ["bare-x86_64", "bare-i386-pae", "linux73-bare"])
def test_by_the_banner(domain: Open, name: str) -> None:
    """Below a CPU's root, and in memory: without any text of VMCOREINFO."""
    bare = domain(name)
    native, image, location = Dump(bare.dump.path), bare.kernel.image, bare.kernel.location
    symbols = bare.kernel.symbols
    banner = native.virtual(location.root, location.paging).translate(symbols["linux_banner"])
    below = kaslr.by_roots(native, image, [Root(0, "none"), Root(location.root, "cr3")])
    in_memory = kaslr.by_image(native, image)
    for claims in (list(below), list(in_memory)):
        assert {claim.slide for claim in claims} == {location.slide}
        (phys_base,) = {claim.phys_base for claim in claims}
        assert phys_base is not None
        linked = symbols["linux_banner"] - location.slide
        assert banner == linked + location.slide - link_base(image, image.symbols()) + phys_base


def test_search_for_another_kernel(domain: Open, dump_file: Callable[[str], str]) -> None:
    native = Dump(domain("bare-x86_64").dump.path)
    image = Image(dump_file("vmlinux-6.1.0-50-686"))
    assert list(kaslr.by_text(native, image)) == []
    assert list(kaslr.by_image(native, image)) == []
