"""How a kernel uses its memory: the counters of /proc/meminfo."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from .._native import AbsentError, MemoryFault
from ..limits import MAX_HUGE_PAGE_SIZES, MAX_PAGE_ORDER, MAX_SWAP_FILES, MAX_SWAPPER_SPACES
from . import percpu
from .kernel import Kernel
from .layouts import Number
from .linked_structs import LinkedStructs
from .structs import Structs, batches

if TYPE_CHECKING:
    from .._native import Types

#: Binary logarithm of the KiB of a page.
_PAGE_KIB_SHIFT = 2


class MemoryUse(NamedTuple):
    """Numbers of pages; None for what is not known."""

    total: int | None
    free: int | None
    #: Pages of the page cache of block devices.
    buffers: int | None
    #: Pages of files, without these and without the swap cache.
    cached: int | None
    slab: int | None
    huge_total: int | None
    huge_free: int | None
    swap_total: int | None
    swap_free: int | None
    commit_limit: int | None
    committed: int | None


def memory_use(kernel: Kernel) -> MemoryUse:
    """Reads the counters. Each that cannot be read is None, with a warning.

    AbsentError if none can be read.
    """
    reader = _Reader(kernel)
    problems: dict[str, str] = {}

    def known(what: str, read: Callable[[], int]) -> int | None:
        try:
            return read()
        except AbsentError as error:
            problems[what] = str(error)
            return None

    huge = known("the huge pages", lambda: reader.huge[0])
    swap = known("the swap space", lambda: reader.swap[0])
    found = MemoryUse(
        total=known("the memory", reader.total),
        free=known("the free memory", lambda: reader.of_zones("NR_FREE_PAGES")),
        buffers=known("the buffers", reader.buffers),
        cached=known("the cached files", reader.cached),
        slab=known("the slabs", reader.slab),
        huge_total=huge,
        huge_free=None if huge is None else reader.huge[1],
        swap_total=swap,
        swap_free=None if swap is None else reader.swap[1],
        commit_limit=known("the commit limit", reader.commit_limit),
        committed=known("the committed memory", reader.committed),
    )
    if all(value is None for value in found):
        raise AbsentError("; ".join(dict.fromkeys(problems.values())))
    for what, problem in problems.items():
        kernel.warn(f"{what} cannot be counted: {problem}")
    return found


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._huge: tuple[int, int] | None = None
        self._swap: tuple[int, int] | None = None
        self._buffers: int | None = None

    def _long(self, name: str) -> int:
        """A variable: a long, an atomic_long_t or a pointer-sized number."""
        kernel = self._kernel
        return _signed(kernel.pointer(kernel.symbol(name)), kernel.word)

    @cached_property
    def _native(self) -> "Types":
        """The types from BTF or DWARF."""
        native = self._kernel.types.native
        if native is None:
            raise self._kernel.untyped("neither BTF nor DWARF")
        return native

    def _has_type(self, name: str) -> bool:
        """Whether the kernel is built with the feature that has this struct."""
        return name in self._native

    def total(self) -> int:
        """Pages that the page allocator manages."""
        # 5.0, ca79b0c211af: an atomic.
        new = "_totalram_pages" in self._kernel.symbols
        return self._long("_totalram_pages" if new else "totalram_pages")

    def of_zones(self, item: str) -> int:
        """A counter of all zones, by its enumerator."""
        return self._counter("vm_zone_stat", "zone_stat_item", item)

    def of_nodes(self, item: str) -> int:
        """A counter of all nodes (4.8 on, 75ef71840539), by its enumerator."""
        return self._counter("vm_node_stat", "node_stat_item", item)

    def _counter(self, array: str, enum: str, item: str) -> int:
        kernel = self._kernel
        items = self._native.enum(enum)
        if item not in items or not 0 <= items[item] < len(items):
            raise AbsentError(f"{kernel.image.path}: enum {enum} has no {item}")
        at = kernel.symbol(array) + items[item] * kernel.word
        # As the kernel does: counts of single CPUs may not have been added yet.
        return max(_signed(kernel.pointer(at), kernel.word), 0)

    def slab(self) -> int:
        """Pages of slabs."""
        try:  # 5.9, d42f3245c7e2: renamed; the sum of all nodes still counts pages.
            return self.of_nodes("NR_SLAB_RECLAIMABLE_B") + self.of_nodes("NR_SLAB_UNRECLAIMABLE_B")
        except MemoryFault:
            raise
        except AbsentError:
            return self.of_nodes("NR_SLAB_RECLAIMABLE") + self.of_nodes("NR_SLAB_UNRECLAIMABLE")

    def buffers(self) -> int:
        """Pages that the inodes of block devices have in the page cache."""
        if self._buffers is None:
            self._buffers = self._count_buffers()
        return self._buffers

    def _count_buffers(self) -> int:
        kernel = self._kernel
        block = kernel.pointer(kernel.symbol("blockdev_superblock"))
        head = block + kernel.offset("super_block.s_inodes")
        mapping = kernel.numeric("inode.i_mapping")
        pages = kernel.numeric("address_space.nrpages")
        total = 0
        (found,) = LinkedStructs(kernel, "inode.i_sb_list").lists([head])
        if found.problem is not None:
            raise AbsentError(found.problem)
        for batch in batches(found.entries):
            inodes = Structs(kernel, batch, [mapping])
            spaces = Structs(kernel, inodes.values(mapping), [pages])
            total += sum(spaces.read(inodes.read(inode, mapping), pages) for inode in batch)
        return total

    def cached(self) -> int:
        """Pages of files without buffers and without the swap cache."""
        return max(self.of_nodes("NR_FILE_PAGES") - self._swap_cache() - self.buffers(), 0)

    def _swap_cache(self) -> int:
        kernel = self._kernel
        if not self._has_type("swap_info_struct"):
            return 0  # without CONFIG_SWAP
        # 5.12, b6038942480e.
        if "NR_SWAPCACHE" in self._native.enum("node_stat_item"):
            return self.of_nodes("NR_SWAPCACHE")
        # 4.11, 4b3ef9daa4fc: arrays of address spaces, one array for each swap file.
        arrays, counts = kernel.symbol("swapper_spaces"), kernel.symbol("nr_swapper_spaces")
        step = kernel.types.sizeof("address_space")
        total = 0
        for i in range(MAX_SWAP_FILES):
            # Only swap files that are in use have an array.
            if i >= self._swap_files():
                break
            count = kernel.number(counts + 4 * i, 4)
            if count > MAX_SWAPPER_SPACES:
                raise AbsentError(f"the swap file {i} has {count} address spaces")
            array = kernel.pointer(arrays + kernel.word * i) if count else 0
            starts = [array + step * j & kernel.last for j in range(count)]
            structs = Structs(kernel, starts, ["address_space.nrpages"])
            total += sum(structs.read(start, "address_space.nrpages") for start in starts)
        return total

    # Huge pages

    @property
    def huge(self) -> tuple[int, int]:
        """Huge pages and free ones, in pages of 4 KiB."""
        if self._huge is None:
            self._huge = self._count_huge()
        return self._huge

    def _count_huge(self) -> tuple[int, int]:
        kernel = self._kernel
        if not self._has_type("hstate"):
            return 0, 0  # without CONFIG_HUGETLB_PAGE
        count = kernel.variable("hugetlb_max_hstate", 4)
        if count > MAX_HUGE_PAGE_SIZES:
            raise AbsentError(f"there are {count} sizes of huge pages")
        total = free = 0
        for i in range(count):
            at = kernel.symbol("hstates") + i * kernel.types.sizeof("hstate")
            order = kernel.read(at, "hstate.order")
            if order > 2 * MAX_PAGE_ORDER:
                raise AbsentError(f"huge pages have the order {order}")
            total += kernel.read(at, "hstate.nr_huge_pages") << order
            free += kernel.read(at, "hstate.free_huge_pages") << order
        return total, free

    # Swap

    @property
    def swap(self) -> tuple[int, int]:
        """Pages of swap space, and free ones."""
        if self._swap is None:
            self._swap = self._count_swap()
        return self._swap

    def _swap_files(self) -> int:
        count = self._kernel.variable("nr_swapfiles", 4)
        if count > MAX_SWAP_FILES:
            raise AbsentError(f"there are {count} swap files")
        return count

    def _count_swap(self) -> tuple[int, int]:
        kernel = self._kernel
        if not self._has_type("swap_info_struct"):
            return 0, 0  # without CONFIG_SWAP
        leaving = sum(self._leaving())
        return (
            max(self._long("total_swap_pages") + leaving, 0),
            max(_signed(kernel.pointer(kernel.symbol("nr_swap_pages")), kernel.word) + leaving, 0),
        )

    def _leaving(self) -> Iterator[int]:
        """Pages in use in swap files that swapoff is emptying: the totals leave them out."""
        kernel = self._kernel
        used = self._native.enumerator("SWP_USED")
        writable = self._native.enumerator("SWP_WRITEOK")
        counter, mask = "swap_info_struct.inuse_pages", kernel.last
        if kernel.has(f"{counter}.counter"):  # an atomic in newer versions
            counter += ".counter"
            # 6.13, b228386cf37c: a flag, SWAP_USAGE_OFFLIST_BIT.
            mask &= ~(1 << 8 * kernel.word - 2)
        for i in range(self._swap_files()):
            at = kernel.pointer(kernel.symbol("swap_info") + i * kernel.word)
            state = kernel.read(at, "swap_info_struct.flags") if at else 0
            if state & used and not state & writable:
                yield kernel.read(at, counter) & mask

    # Committed memory

    def commit_limit(self) -> int:
        """Memory that may be committed with vm.overcommit_memory=2."""
        kernel = self._kernel
        kib = kernel.pointer(kernel.symbol("sysctl_overcommit_kbytes"))
        if kib:
            allowed = kib >> _PAGE_KIB_SHIFT
        else:
            ratio = kernel.variable("sysctl_overcommit_ratio", 4)
            allowed = max(self.total() - self.huge[0], 0) * ratio // 100
        swap = self._long("total_swap_pages") if self._has_type("swap_info_struct") else 0
        return allowed + max(swap, 0)

    def committed(self) -> int:
        """Memory that is committed: the sum of the counter of all CPUs."""
        kernel = self._kernel
        at = kernel.symbol("vm_committed_as")
        total = kernel.read(at, "percpu_counter.count")
        if kernel.has("percpu_counter.counters"):  # with CONFIG_SMP
            share = Number(0, 4, signed=True)
            base = kernel.read(at, "percpu_counter.counters")
            for cpu in percpu.areas(kernel):
                total += kernel.read(percpu.shifted(kernel, base, cpu), share)
        return max(total, 0)


def _signed(value: int, word: int) -> int:
    return value - (1 << 8 * word) if value >> (8 * word - 1) else value
