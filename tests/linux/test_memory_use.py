"""Counters of memory: versions and damage."""

from collections.abc import Container

import pytest

from tests.linux.fakes import FakeKernel, FakeMember, words
from tests.linux.objects import overlapping
from xenkdump_fast import AbsentError
from xenkdump_fast.linux.memory_use import memory_use

BASE, SUPER, INODES = 0xFFFF888000010000, 0xFFFF888000020000, 0xFFFF888000030000
ZONES = ("NR_FREE_PAGES", "NR_ZONE_INACTIVE_ANON")
NODES = ("NR_FILE_PAGES", "NR_SLAB_RECLAIMABLE_B", "NR_SLAB_UNRECLAIMABLE_B", "NR_SWAPCACHE")
SYMBOLS = {
    name: BASE + 0x100 * i
    for i, name in enumerate(
        (
            "_totalram_pages",
            "vm_zone_stat",
            "vm_node_stat",
            "blockdev_superblock",
            "hugetlb_max_hstate",
            "hstates",
            "nr_swapfiles",
            "swap_info",
            "total_swap_pages",
            "nr_swap_pages",
            "sysctl_overcommit_kbytes",
            "sysctl_overcommit_ratio",
            "vm_committed_as",
        )
    )
}
LAYOUT: dict[str, int | FakeMember] = {
    "super_block.s_inodes": FakeMember(0, 16),
    "inode": 32,
    "inode.i_sb_list": FakeMember(0, 16),
    "inode.i_mapping": FakeMember(16, 8),
    "address_space.nrpages": FakeMember(0, 8),
    "hstate": 64,
    "hstate.order": FakeMember(0, 4),
    "hstate.nr_huge_pages": FakeMember(8, 8),
    "hstate.free_huge_pages": FakeMember(16, 8),
    "swap_info_struct": 64,
    "swap_info_struct.flags": FakeMember(0, 8),
    "swap_info_struct.inuse_pages": FakeMember(8, 4),
    "percpu_counter.count": FakeMember(0, 8, signed=True),
}


class SimpleTypes:
    """Enums, and the names of structs."""

    def __init__(self, enums: dict[str, list[str]], structs: Container[str]) -> None:
        self.enums = enums
        self.structs = structs

    def __contains__(self, struct: str) -> bool:
        return struct in self.structs

    def enum(self, name: str) -> dict[str, int]:
        return {item: i for i, item in enumerate(self.enums[name])}

    def enumerator(self, name: str) -> int:
        return {"SWP_USED": 1, "SWP_WRITEOK": 2}[name]


class Made:
    """A kernel with 1000 pages; tests change its counters."""

    def __init__(self, *without: str) -> None:
        layout = {name: at for name, at in LAYOUT.items() if name not in without}
        symbols = {name: at for name, at in SYMBOLS.items() if name not in without}
        self.kernel = FakeKernel(symbols, layout)
        nodes = [name for name in NODES if name not in without]
        enums = {"zone_stat_item": list(ZONES), "node_stat_item": nodes}
        native = SimpleTypes(enums, layout)
        types = self.kernel.types
        types.__class__ = type("Types", (type(types),), {"native": native})
        memory = self.kernel.memory
        memory.write(BASE, bytes(0x2000))
        self.set("_totalram_pages", 1000)
        self.set("vm_zone_stat", 400)
        self.set("vm_node_stat", 300, 20, 30, 40)
        self.set("blockdev_superblock", SUPER)
        self.set("hugetlb_max_hstate", 2)
        self.set("hstates", 1, 8, 3, *[0] * 5, 2, 4, 1)
        self.set("nr_swapfiles", 1)
        self.set("swap_info", INODES + 0x800)
        self.set("total_swap_pages", 500)
        self.set("nr_swap_pages", 450)
        self.set("sysctl_overcommit_ratio", 50)
        self.set("vm_committed_as", 77)
        first, second = INODES, INODES + 0x100
        memory.write(SUPER, words(8, first, second))
        memory.write(first, words(8, second, SUPER, INODES + 0x200))
        memory.write(second, words(8, SUPER, first, INODES + 0x200))
        memory.write(INODES + 0x200, words(8, 5))

    def set(self, name: str, *values: int) -> None:
        self.kernel.memory.write(SYMBOLS[name], words(8, *values))


def test_all_counters() -> None:
    made = Made()
    use = memory_use(made.kernel)
    assert (use.total, use.free, use.buffers, use.slab) == (1000, 400, 10, 50)
    assert use.cached == 300 - 40 - 10
    assert (use.huge_total, use.huge_free) == (8 * 2 + 4 * 4, 3 * 2 + 1 * 4)
    assert (use.swap_total, use.swap_free) == (500, 450)
    assert use.commit_limit == (1000 - 32) // 2 + 500
    assert use.committed == 77
    assert not made.kernel.warnings


def test_a_swap_file_that_is_emptied() -> None:
    made = Made()
    made.kernel.memory.write(INODES + 0x800, words(8, 1, 25))
    use = memory_use(made.kernel)
    assert (use.swap_total, use.swap_free) == (525, 475)


def test_a_limit_in_kib() -> None:
    made = Made()
    made.set("sysctl_overcommit_kbytes", 400)
    assert memory_use(made.kernel).commit_limit == 100 + 500


@pytest.mark.parametrize(
    ("missing", "fields"),
    [
        ("vm_zone_stat", {"free"}),
        ("NR_FILE_PAGES", {"cached"}),
        ("NR_SLAB_RECLAIMABLE_B", {"slab"}),
        ("blockdev_superblock", {"buffers", "cached"}),
        ("hugetlb_max_hstate", {"huge_total", "huge_free", "commit_limit"}),
        ("nr_swapfiles", {"swap_total", "swap_free"}),
        ("vm_committed_as", {"committed"}),
    ],
)
def test_what_is_not_known(missing: str, fields: set[str]) -> None:
    made = Made(missing)
    found = memory_use(made.kernel)._asdict()
    assert {name for name, value in found.items() if value is None} == fields
    assert len(made.kernel.warnings) >= 1


@pytest.mark.parametrize(
    ("name", "value", "fields"),
    [
        ("hugetlb_max_hstate", 1 << 31, {"huge_total", "huge_free", "commit_limit"}),
        ("hstates", 0xFFFFFFFF, {"huge_total", "huge_free", "commit_limit"}),
        ("nr_swapfiles", 0xFFFFFFFF, {"swap_total", "swap_free"}),
        ("blockdev_superblock", 0x1000, {"buffers", "cached"}),
    ],
)
def test_damage(name: str, value: int, fields: set[str]) -> None:
    made = Made()
    made.set(name, value)
    found = memory_use(made.kernel)._asdict()
    assert {name for name, value in found.items() if value is None} == fields


def test_a_cycle_of_inodes() -> None:
    made = Made()
    made.kernel.memory.number(INODES + 0x100, INODES, 8)
    assert memory_use(made.kernel).buffers is None
    assert any("loops back" in text for text in made.kernel.warnings)


def test_nothing_is_known() -> None:
    """Without types nothing says whether the kernel has swap or huge pages at all."""
    made = Made(*SYMBOLS)
    types = made.kernel.types
    types.__class__ = type("Types", (type(types),), {"native": None})
    with pytest.raises(AbsentError, match="neither BTF nor DWARF"):
        memory_use(made.kernel)


def test_negative_counters() -> None:
    made = Made()
    made.set("vm_zone_stat", (1 << 64) - 5)
    assert memory_use(made.kernel).free == 0


def test_overlapping_inodes() -> None:
    made = Made()
    overlapping(made.kernel, SUPER)
    made.kernel.memory.reads = 0
    assert memory_use(made.kernel).buffers is None
    assert made.kernel.memory.reads - made.kernel.memory.walked < 100
    assert any("the struct inode at" in text for text in made.kernel.warnings)
