"""Swap devices, and damage in them."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import swap

from .objects import NOWHERE, Objects

COMMON = """
vfsmount: mnt_root
mount: mnt_parent mnt_mountpoint mnt:8
dentry: d_parent d_inode d_name.name d_name.len:4
file: f_path.mnt f_path.dentry
"""
PLAIN = COMMON + "swap_info_struct: flags prio:2- pad:2 pages:4 inuse_pages:4 swap_file"
ATOMIC = COMMON + "swap_info_struct: flags prio:2- pad:2 pages:4 inuse_pages.counter swap_file"
OFF_LIST = 1 << 62


class Devices:
    """One device in use, and one that is not."""

    def __init__(self, layouts: str = PLAIN) -> None:
        self.objects = Objects(layouts)
        self.kernel = kernel = self.objects.kernel
        member = "inuse_pages" if layouts == PLAIN else "inuse_pages__counter"
        count = 3 if layouts == PLAIN else 3 | OFF_LIST
        root = self.objects.make("dentry", d_name__name="/", d_name__len=1)
        self.objects.set(root, "dentry", d_parent=root)
        dentry = self.objects.make("dentry", d_parent=root, d_name__name="sda2", d_name__len=4)
        mount = self.objects.make("mount", mnt_mountpoint=root)
        self.objects.set(mount, "mount", mnt_parent=mount)
        inside = mount + kernel.offset("mount.mnt")
        self.objects.set(inside, "vfsmount", mnt_root=root)
        file = self.objects.make("file", f_path__mnt=inside, f_path__dentry=dentry)
        self.used = self.objects.make(
            "swap_info_struct", flags=0x41, prio=-2, pages=10, swap_file=file, **{member: count}
        )
        self.other = self.objects.make("swap_info_struct", flags=0)
        self.objects.symbols(
            swap_info=self.objects.reserve(64), nr_swapfiles=self.objects.reserve(4)
        )
        self.list(self.used, self.other)

    def list(self, *found: int) -> None:
        memory = self.kernel.memory
        for i, at in enumerate(found):
            memory.number(self.kernel.symbol("swap_info") + 8 * i, at, 8)
        memory.number(self.kernel.symbol("nr_swapfiles"), len(found), 4)


@pytest.mark.parametrize("layouts", [PLAIN, ATOMIC])
def test_a_device(layouts: str) -> None:
    made = Devices(layouts)
    (found,) = swap.swaps(made.kernel)
    assert found == swap.Swap(made.used, False, 40960, 3 * 4096, -2, "/sda2")
    assert found.percent == 30
    assert made.kernel.warnings == []


def test_a_file() -> None:
    made = Devices()
    made.objects.set(made.used, "swap_info_struct", flags=1, pages=0)
    (found,) = swap.swaps(made.kernel)
    assert (found.is_file, found.size, found.percent) == (True, 0, 0)


def test_damage() -> None:
    made = Devices()
    made.list(NOWHERE, made.used, 0)
    assert [one.address for one in swap.swaps(made.kernel)] == [made.used]
    assert "cannot be read" in made.kernel.warnings[0]
    made.objects.set(made.used, "swap_info_struct", swap_file=NOWHERE)
    assert swap.swaps(made.kernel) == []
    made.kernel.memory.number(made.kernel.symbol("nr_swapfiles"), 0xFFFFFFFF, 4)
    with pytest.raises(AbsentError, match="nr_swapfiles"):
        swap.swaps(made.kernel)
