"""Where a kernel is, by facts that are not to be believed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import xenkdump_fast as xk
from xenkdump_fast._native import Image
from xenkdump_fast.linux import kaslr, vmcoreinfo
from xenkdump_fast.linux.locate import locate
from xenkdump_fast.sample import forge


@pytest.mark.parametrize("number", ["-5", "8000000000000000", "f" * 16, "f" * 40, "no number"])
def test_slides_that_no_kernel_has(number: str, tmp_path: Path) -> None:
    sample = forge(tmp_path / "dump", like="modern")
    dump = xk.open(str(sample.vmcore))
    domain = dump.domain(0, str(sample.vmlinux))
    facts = {"KERNELOFFSET": number}
    found = locate(dump.native, Image(str(sample.vmlinux)), [], domain.p2m, facts, domain.physical)
    assert found.slide == 0
    facts["NUMBER(phys_base)"] = f"{(1 << 63) - 1}"
    with pytest.raises(xk.AbsentError):
        locate(dump.native, Image(str(sample.vmlinux)), [], domain.p2m, facts, domain.physical)


def test_numbers_of_vmcoreinfo() -> None:
    facts = {"small": "-1", "large": str((1 << 64) - 1), "larger": str(1 << 64), "text": "x"}
    assert [vmcoreinfo.number(facts, key) for key in (*facts, "none")] == [
        -1,
        (1 << 64) - 1,
        None,
        None,
        None,
    ]


def test_memory_past_the_end_of_all_addresses() -> None:
    """A block of random bytes in the program headers puts a segment there."""
    asked = []

    def read(address: int, size: int) -> bytes:
        asked.append((address, size))
        if address + size > 1 << 64:
            raise OverflowError("int too big to convert")
        raise xk.MemoryFault("nothing there")

    segments = [((1 << 64) - (9 << 20), 1 << 62, 1 << 62)]
    dump: Any = SimpleNamespace(segments=segments, machine=SimpleNamespace(read=read))
    assert kaslr.by_search(dump, cast(Image, None)) is None
    assert len(asked) == 3
