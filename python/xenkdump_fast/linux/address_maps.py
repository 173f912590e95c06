"""Address maps of processes: their virtual memory areas."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .._native import AbsentError, MemoryFault
from ..isolation import isolated
from ..limits import MAX_ADDRESS_MAP_READ
from . import mm, trees
from .kernel import Kernel
from .mm import Usage
from .paths import UNKNOWN, Paths
from .structs import Structs, batches
from .tasks import Task

#: Bytes of a name that prctl(PR_SET_VMA_ANON_NAME) gives (include/uapi/linux/prctl.h: 80), and of
#: the name of a special mapping.
_MAX_NAME = 80
_NO_NAME = "the name of a memory area is not known"
#: Of each mm_struct.
_MM_MEMBERS = (
    "mm_struct.pgd",
    "mm_struct.start_brk",
    "mm_struct.brk",
    "mm_struct.start_stack",
)


class Area(NamedTuple):
    """One virtual memory area."""

    #: Address of its vm_area_struct.
    address: int
    start: int
    #: The first address after it.
    end: int
    #: ``vm_flags``.
    flags: int
    #: Address of the struct file that it maps; 0 for anonymous memory.
    file: int
    #: The path of the file, or as in /proc/PID/maps: ``[heap]``, ``[stack]``, ``[vdso]``, ...
    name: str


class AddressMap(NamedTuple):
    """The user memory of a process."""

    #: Address of the mm_struct.
    mm: int
    #: The top page table, ``mm_struct.pgd``.
    pgd: int
    #: None if it is not known.
    usage: Usage | None
    areas: Sequence[Area]


class _Heap(NamedTuple):
    """Where a process has its heap and its stack."""

    start: int
    end: int
    stack: int


class _Vma(NamedTuple):
    """A vm_area_struct that was read."""

    address: int
    start: int
    end: int
    flags: int
    file: int
    operations: int
    private: int
    #: The struct anon_vma_name; 0 if there is none.
    named: int


def address_maps(
    kernel: Kernel, tasks: Sequence[Task], all_tasks: Iterable[Task]
) -> dict[int, AddressMap | None]:
    """The address map of each of ``tasks``, by its address; None without user space.

    ``all_tasks`` has the other threads of their processes, which count resident pages of their own.
    What cannot be read is left out with a warning. AbsentError if the types are not known.
    """
    groups = {task.tgid for task in tasks}
    used = mm.usage(kernel, [task for task in all_tasks if task.tgid in groups])
    return _Reader(kernel).read(tasks, used)


class _Reader:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._start = kernel.numeric("vm_area_struct.vm_start")
        self._end = kernel.numeric("vm_area_struct.vm_end")
        self._flags = kernel.numeric("vm_area_struct.vm_flags")
        self._file = kernel.numeric("vm_area_struct.vm_file")
        self._operations = kernel.numeric("vm_area_struct.vm_ops")
        self._private = kernel.numeric("vm_area_struct.vm_private_data")
        # 5.17, 9a10064f5625. Until 6.2 (d09e8ca6cb93) it shared its place with that of files.
        self._named = None
        self._files_named = False
        if kernel.has("vm_area_struct.anon_name"):
            self._named = kernel.numeric("vm_area_struct.anon_name")
            shared = kernel.offset("vm_area_struct.shared")
            self._files_named = self._named.offset != shared
        # 6.1, 763ecb035029: a maple tree in place of a list.
        self._is_tree = kernel.has("mm_struct.mm_mt")
        if not self._is_tree and not kernel.has("mm_struct.mmap"):
            raise AbsentError(
                f"{kernel.image.path}: the areas of an mm_struct are not known: it has neither "
                "mm_mt nor mmap"
            )
        self._areas = kernel.object_budget(
            "virtual memory areas", kernel.types.sizeof("vm_area_struct")
        )
        self._paths = Paths(kernel)
        #: Whether areas with these operations are special, and the names of special mappings.
        self._special: dict[int, bool] = {}
        self._special_names: dict[int, str] = {}

    def read(
        self, tasks: Sequence[Task], used: Mapping[int, Usage]
    ) -> dict[int, AddressMap | None]:
        kernel = self._kernel
        structs = Structs(kernel, [task.address for task in tasks], ["task_struct.mm"])
        mms: dict[int, int] = {}
        for task in tasks:
            with isolated(f"the mm of task {task.pid} cannot be read", kernel.warn):
                mms[task.address] = structs.read(task.address, "task_struct.mm")
        read: dict[int, list[_Vma]] = {}
        with kernel.budget("address maps", MAX_ADDRESS_MAP_READ):
            for at in dict.fromkeys(mms.values()):
                if at:
                    read[at] = self._vmas(at)
            files = self._file_paths(vma.file for vmas in read.values() for vma in vmas)
            maps = Structs(kernel, read, _MM_MEMBERS)
            shown = {at: self._shown(_heap(maps, at), vmas, files) for at, vmas in read.items()}
        found: dict[int, AddressMap | None] = {}
        for task in tasks:
            if task.address not in mms:
                continue
            at = mms[task.address]
            if at == 0:
                found[task.address] = None
            else:
                with isolated(f"the mm of task {task.pid} cannot be read", kernel.warn):
                    pgd = maps.read(at, "mm_struct.pgd")
                    found[task.address] = AddressMap(at, pgd, used.get(task.address), shown[at])
        return found

    def _vmas(self, at: int) -> list[_Vma]:
        """The areas of an mm_struct, as far as they can be read."""
        kernel = self._kernel
        what = f"the areas of the mm_struct at {at:#x} are not complete"
        #: Addresses, and where the tree has them.
        places: list[tuple[int, int | None]] = []
        with isolated(what, kernel.warn):
            walk = self._ranges(at) if self._is_tree else self._linked(at)
            for place in self._areas.take(walk):
                places.append(place)  # noqa: PERF402 - those before an error are kept
        found: list[_Vma] = []
        for batch in batches(places):
            structs = self._structs(address for address, _ in batch)
            for address, start in batch:
                with isolated(what, kernel.warn):
                    vma = self._vma(structs, address)
                    if start is not None and vma.start != start:
                        raise AbsentError(
                            f"the tree has the area {address:#x} at {start:#x}, but it starts at "
                            f"{vma.start:#x}"
                        )
                    found.append(vma)
        return found

    def _ranges(self, at: int) -> Iterator[tuple[int, int | None]]:
        """The areas of the maple tree, each with the address that it starts at."""
        tree = at + self._kernel.offset("mm_struct.mm_mt")
        for entry in trees.walk(self._kernel, "maple", tree):
            yield entry.value, entry.first

    def _linked(self, at: int) -> Iterator[tuple[int, None]]:
        """The areas of the list, before 6.1: by ``vm_next``, ascending."""
        kernel = self._kernel
        following = kernel.numeric("vm_area_struct.vm_next")
        seen: set[int] = set()
        address = kernel.read(at, "mm_struct.mmap")
        while address:
            if address in seen:
                raise AbsentError(f"the list has the area {address:#x} twice")
            seen.add(address)
            yield address, None
            address = kernel.read(address, following)

    def _structs(self, addresses: Iterable[int]) -> Structs:
        members = [
            self._start,
            self._end,
            self._flags,
            self._file,
            self._operations,
            self._private,
        ]
        if self._named is not None:
            members.append(self._named)
        return Structs(self._kernel, addresses, members)

    def _vma(self, structs: Structs, address: int) -> _Vma:
        file = structs.read(address, self._file)
        named = 0
        if self._named is not None and (not file or self._files_named):
            named = structs.read(address, self._named)
        return _Vma(
            address,
            structs.read(address, self._start),
            structs.read(address, self._end),
            structs.read(address, self._flags),
            file,
            structs.read(address, self._operations),
            structs.read(address, self._private),
            named,
        )

    def _file_paths(self, files: Iterable[int]) -> dict[int, str]:
        kernel = self._kernel
        mount = kernel.numeric("file.f_path.mnt")
        dentry = kernel.numeric("file.f_path.dentry")
        found: dict[int, tuple[int, ...]] = {}
        for batch in batches(file for file in dict.fromkeys(files) if file):
            rows, problems = Structs(kernel, batch, [mount, dentry]).table(mount, dentry)
            found.update(rows)
            for at, error in problems.items():
                kernel.warn(f"the file at {at:#x} cannot be read: {error}")
        mounts = [mount for mount, _ in found.values()]
        texts = self._paths.texts(mounts, [dentry for _, dentry in found.values()])
        return dict(zip(found, texts, strict=True))

    def _shown(self, heap: _Heap, vmas: Iterable[_Vma], files: dict[int, str]) -> list[Area]:
        return [
            Area(vma.address, vma.start, vma.end, vma.flags, vma.file, self._name(vma, heap, files))
            for vma in vmas
        ]

    def _name(self, vma: _Vma, heap: _Heap, files: dict[int, str]) -> str:
        """As /proc/PID/maps names it; the path for a file."""
        if vma.file:
            if vma.named:
                return f"[anon_shmem:{self._text(vma.named, 'anon_vma_name.name')}]"
            return files.get(vma.file, "")
        if vma.operations and self._is_special(vma.operations):
            return self._special_name(vma.private)
        if heap.start and heap.end and vma.start <= heap.end and vma.end >= heap.start:
            return "[heap]"
        if heap.stack and vma.start <= heap.stack <= vma.end:
            return "[stack]"
        if vma.named:
            return f"[anon:{self._text(vma.named, 'anon_vma_name.name')}]"
        return ""

    def _is_special(self, operations: int) -> bool:
        """Whether the area is one that the kernel maps, such as the vdso (3.15, a62c34bd2a8a)."""
        known = self._special.get(operations)
        if known is None:
            known = self._special[operations] = self._has_special_name(operations)
        return known

    def _has_special_name(self, operations: int) -> bool:
        kernel = self._kernel
        special = kernel.symbols.get("special_mapping_name")
        if special is None or not kernel.has("vm_operations_struct.name"):
            return False
        with isolated(_NO_NAME, kernel.warn, MemoryFault):
            return kernel.read(operations, "vm_operations_struct.name") == special
        return False

    def _special_name(self, mapping: int) -> str:
        """The name of an area that the kernel maps: all processes have the same few."""
        name = self._special_names.get(mapping)
        if name is None:
            name = self._special_names[mapping] = self._pointed(mapping, "vm_special_mapping.name")
        return name

    def _text(self, struct: int, member: str) -> str:
        """The string in a member."""
        with isolated(_NO_NAME, self._kernel.warn):
            return self._kernel.string(struct + self._kernel.offset(member), _MAX_NAME)
        return UNKNOWN

    def _pointed(self, struct: int, member: str) -> str:
        """The string that a member points to."""
        with isolated(_NO_NAME, self._kernel.warn):
            return self._kernel.string(self._kernel.read(struct, member), _MAX_NAME)
        return UNKNOWN


def _heap(maps: Structs, at: int) -> _Heap:
    """Where the process of an mm_struct has its heap and its stack; zeros if it cannot be read."""
    try:
        return _Heap(
            maps.read(at, "mm_struct.start_brk"),
            maps.read(at, "mm_struct.brk"),
            maps.read(at, "mm_struct.start_stack"),
        )
    except AbsentError:
        return _Heap(0, 0, 0)
