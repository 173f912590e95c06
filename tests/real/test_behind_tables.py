"""Kernels of bare machines, read as those of translated guests: the same tasks and backtraces."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import xenkdump_fast as xk
from xenkdump_fast._native import P2M, Dump, Image
from xenkdump_fast.linux.boot.locate import locate
from xenkdump_fast.linux.boot.roots import Roots
from xenkdump_fast.linux.system import Linux

from .behind_tables import ROOT, move
from .conftest import VMLINUX

if TYPE_CHECKING:
    from xenkdump_fast._native import NestedFormat

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("name", "shift", "layout", "paging"),
    [
        ("bare-i386-pae", 1 << 30, "npt", "x86-pae"),
        # KASLR, and the kernel's root is found by a search of the guest's memory.
        ("linux73-bare", 1 << 32, "ept", "x86_64"),
    ],
)
def test_the_same_kernel(
    name: str,
    shift: int,
    layout: "NestedFormat",
    paging: str,
    dump_file: Callable[[str], str],
    domain: Callable[[str], xk.Domain],
    tmp_path: Path,
) -> None:
    target = tmp_path / "vmcore"
    move(Path(dump_file(f"{name}/vmcore")), target, shift, layout)
    dump = Dump(str(target))
    p2m = P2M.nested(dump, ROOT, layout)
    guest = dump.guest(p2m, dump.memory_held)
    image = Image(dump_file(VMLINUX[name]))
    found = locate(Roots(guest, image, []), None, [], guest.physical(None))
    bare = domain(name).kernel
    assert (found.paging, found.slide, found.root) == (
        paging,
        bare.location.slide,
        bare.location.root,
    )
    virtual = dump.virtual(found.root, found.paging, p2m=p2m)
    kernel = Linux(image, found, virtual, dump.memory_held)
    tasks, expected = kernel.tasks(), bare.tasks()
    assert [(task.pid, task.comm, task.address) for task in tasks] == [
        (task.pid, task.comm, task.address) for task in expected
    ]
    banner = kernel.symbol("linux_banner")
    assert virtual.translate(banner) == bare.virtual.translate(banner) + shift
    compared = 0
    for ours, theirs in zip(tasks, expected, strict=True):
        if not ours.active:
            assert kernel.backtrace(ours).frames == bare.backtrace(theirs).frames
            compared += 1
    assert compared > 100
