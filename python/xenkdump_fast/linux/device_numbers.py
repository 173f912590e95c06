"""Registered majors of character and block devices."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..isolation import isolated
from ..limits import MAX_DEVICE_PROBES, MAX_DEVICE_RANGES
from .chains import chain
from .kernel import Kernel
from .layouts import Number
from .linked_structs import LinkedStructs
from .structs import Structs

#: CHRDEV_MAJOR_HASH_SIZE (fs/char_dev.c), BLKDEV_MAJOR_HASH_SIZE (block/genhd.c) and the probes of
#: struct kobj_map (drivers/base/map.c).
_BUCKETS = 255
#: MINORBITS.
_MINOR_BITS = 20
_MAX_NAME = 64


class Character(NamedTuple):
    """A range of numbers of character devices."""

    major: int
    #: The first minor, and how many there are.
    minor: int
    minors: int
    name: str
    #: Address of the struct cdev that the first number has; 0 if it has none.
    cdev: int
    #: Address of its file operations, and the module that has them; empty for the kernel.
    operations: int
    module: str


class Block(NamedTuple):
    """A major of block devices."""

    major: int
    name: str


def characters(kernel: Kernel) -> list[Character]:
    """The ranges of character devices, in the order of their hash table.

    Those that cannot be read are left out with a warning. AbsentError if the layout is not known.
    """
    devices = _by_number(kernel)
    found = []
    for at in _entries(kernel, "chrdevs", "char_device_struct.next"):
        with isolated(f"the character devices at {at:#x} cannot be read", kernel.warn):
            major, minor, minors = (
                kernel.read(at, f"char_device_struct.{name}")
                for name in ("major", "baseminor", "minorct")
            )
            name = kernel.text(at, "char_device_struct.name", _MAX_NAME)
            cdev = kernel.read(at, "char_device_struct.cdev")
            cdev = cdev or devices.get(major << _MINOR_BITS | minor, 0)
            operations = kernel.read(cdev, "cdev.ops") if cdev else 0
            module = owner(kernel, operations, "file_operations.owner")
            found.append(Character(major, minor, minors, name, cdev, operations, module))
    return found


def blocks(kernel: Kernel) -> list[Block]:
    """The majors of block devices, as ``characters``."""
    found = []
    for at in _entries(kernel, "major_names", "blk_major_name.next"):
        with isolated(f"the block devices at {at:#x} cannot be read", kernel.warn):
            name = kernel.text(at, "blk_major_name.name", _MAX_NAME)
            found.append(Block(kernel.read(at, "blk_major_name.major"), name))
    return found


def owner(kernel: Kernel, operations: int, member: str) -> str:
    """The name of the module that has operations; empty for the kernel's own, ``?`` if unknown."""
    if not operations or not kernel.has(member) or not kernel.has("module.name"):
        return ""
    with isolated(f"the module with the operations at {operations:#x} is not known", kernel.warn):
        module = kernel.read(operations, member)
        return kernel.text(module, "module.name", _MAX_NAME) if module else ""
    return "?"


def _by_number(kernel: Kernel) -> dict[int, int]:
    """Each struct cdev, by the first number that it is registered for."""
    table = kernel.pointer(kernel.symbol("cdev_map")) + kernel.offset("kobj_map.probes")
    found: dict[int, int] = {}
    probes = LinkedStructs(kernel, "probe.next", MAX_DEVICE_PROBES)
    buckets = _Buckets(kernel, table, "probe.next", ("probe.data", "probe.dev"))
    for i in range(_BUCKETS):
        with isolated("character devices are missing", kernel.warn):
            for at in chain(kernel, buckets.first(i), "probe.next", probes, buckets.read):
                # All buckets end in the same probe, which has no device.
                data = buckets.read(at, "probe.data")
                if data:
                    found.setdefault(buckets.read(at, "probe.dev"), data)
    return found


def _entries(kernel: Kernel, table: str, following: str) -> Iterator[int]:
    structs = LinkedStructs(kernel, following, MAX_DEVICE_RANGES)
    buckets = _Buckets(kernel, kernel.symbol(table), following)
    for i in range(_BUCKETS):
        with isolated(f"entries of {table} are missing", kernel.warn):
            yield from chain(kernel, buckets.first(i), following, structs, buckets.read)


class _Buckets:
    """A hash table, with members of the first two structs of each bucket read together."""

    def __init__(
        self, kernel: Kernel, table: int, following: str, members: Sequence[str] = ()
    ) -> None:
        self._table = table
        self._heads = [Number(i * kernel.word, kernel.word) for i in range(_BUCKETS)]
        self._pointers = Structs(kernel, [table], self._heads)
        firsts = [at for head in self._heads for at in self._pointers.values(head) if at]
        seconds = Structs(kernel, firsts, [following]).values(following)
        #: Reads a member of a struct as ``Kernel.read``.
        self.read = Structs(kernel, [*firsts, *filter(None, seconds)], [following, *members]).read

    def first(self, bucket: int) -> int:
        """The address of the first struct; 0 if there is none."""
        return self._pointers.read(self._table, self._heads[bucket])
