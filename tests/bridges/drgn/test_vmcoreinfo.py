"""VMCOREINFO as drgn gets it."""

from types import SimpleNamespace
from typing import Any

from xenkdump_fast.bridges.drgn.vmcoreinfo import text_for


def kernel(slide: int = 0x1E00_0000, **symbols: int) -> Any:
    location = SimpleNamespace(slide=slide)
    return SimpleNamespace(location=location, release="6.1.0-56-amd64", symbols=symbols)


def test_what_is_recorded_is_kept() -> None:
    text = b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82610000\nX=1\n\0\0"
    assert text_for(kernel(), text) == (
        b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff82610000\nX=1\n"
        b"KERNELOFFSET=1e000000\n"
    )


def test_the_time_of_the_crash_is_omitted_and_the_offset_is_the_verified_one() -> None:
    text = b"OSRELEASE=6.1.0\nKERNELOFFSET=7000000\nCRASHTIME=1795379694\n"
    lines = text_for(kernel(), text).splitlines()
    assert [line for line in lines if line.startswith((b"CRASH", b"KERNELO"))] == [
        b"KERNELOFFSET=1e000000"
    ]


def test_a_kernel_without_it() -> None:
    found = text_for(kernel(0, init_top_pgt=0xFFFFFFFF82610000), b"")
    assert found.splitlines() == [
        b"KERNELOFFSET=0",
        b"OSRELEASE=6.1.0-56-amd64",
        b"PAGESIZE=4096",
        b"SYMBOL(swapper_pg_dir)=ffffffff82610000",
    ]
    lines = text_for(kernel(0, init_level4_pgt=0xFFFFFFFF80101000), b"").splitlines()
    assert b"SYMBOL(swapper_pg_dir)=ffffffff80101000" in lines
    # drgn rejects 0.
    assert b"SYMBOL(swapper_pg_dir)=1" in text_for(kernel(), b"").splitlines()
