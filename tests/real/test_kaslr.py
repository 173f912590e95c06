"""Kernels with KASLR, found without the note that has the offset."""

from collections.abc import Callable

import pytest

from xenkdump_fast import Domain
from xenkdump_fast._native import Dump, Image
from xenkdump_fast.linux.boot import kaslr
from xenkdump_fast.linux.boot.locate import Roots, locate

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
    location = locate(roots, None, {}, native.physical(None))
    assert location[:3] == bare.kernel.location[:3]


def test_search_for_another_kernel(domain: Open, dump_file: Callable[[str], str]) -> None:
    native = Dump(domain("bare-x86_64").dump.path)
    assert kaslr.by_search(native, Image(dump_file("vmlinux-6.1.0-50-686"))) is None
