"""Majors of devices, and damage in their tables."""

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.linux import device_numbers
from xenkdump_fast.linux.device_numbers import Block, Character

from .objects import NOWHERE, Objects, overlapping

LAYOUTS = """
char_device_struct: next major:4 baseminor:4 minorct:4 name:64* cdev
blk_major_name: next major:4 name:16*
kobj_map: probes:2040
probe: next dev:4 pad:4 data
cdev: ops
file_operations: owner
module: name:56*
"""


class Tables:
    """Empty tables, with the probe that all buckets end in."""

    def __init__(self) -> None:
        self.objects = Objects(LAYOUTS)
        self.kernel = self.objects.kernel
        word = self.kernel.word
        self.base = self.objects.make("probe")
        self.map = self.objects.make("kobj_map")
        for i in range(255):
            self.kernel.memory.number(self.map + i * word, self.base, word)
        pointer = self.objects.reserve(word)
        self.kernel.memory.number(pointer, self.map, word)
        self.objects.symbols(
            cdev_map=pointer,
            chrdevs=self.objects.reserve(255 * word),
            major_names=self.objects.reserve(255 * word),
        )

    def character(self, major: int, minor: int, name: str, cdev: int, following: int = 0) -> int:
        at = self.objects.make(
            "char_device_struct",
            major=major,
            baseminor=minor,
            minorct=1,
            name=name,
            cdev=cdev,
            next=following,
        )
        self.put("chrdevs", major, at)
        return at

    def put(self, table: str, major: int, at: int) -> None:
        self.kernel.memory.number(self.kernel.symbol(table) + major % 255 * 8, at, 8)

    def probe(self, major: int, minor: int, cdev: int) -> None:
        at = self.objects.make("probe", dev=major << 20 | minor, data=cdev, next=self.base)
        self.kernel.memory.number(self.map + major % 255 * 8, at, 8)


def test_characters() -> None:
    made = Tables()
    objects = made.objects
    module = objects.make("module", name="loop")
    operations = objects.make("file_operations", owner=module)
    own = objects.make("cdev", ops=operations)
    other = objects.make("cdev", ops=objects.make("file_operations"))
    made.character(1, 0, "mem", own)
    # Majors above 254 share the buckets of others.
    made.character(300, 2, "high", 0)
    made.probe(300, 2, other)
    made.character(13, 0, "input", 0)
    made.probe(13, 64, other)
    found = device_numbers.characters(made.kernel)
    assert found == [
        Character(1, 0, 1, "mem", own, operations, "loop"),
        Character(13, 0, 1, "input", 0, 0, ""),
        Character(300, 2, 1, "high", other, made.kernel.read(other, "cdev.ops"), ""),
    ]
    assert made.kernel.warnings == []


def test_an_owner_that_cannot_be_read() -> None:
    """It is ``?``, with a warning: the operations may not be the kernel's own."""
    made = Tables()
    operations = made.objects.make("file_operations", owner=NOWHERE)
    assert device_numbers.owner(made.kernel, operations, "file_operations.owner") == "?"
    assert device_numbers.owner(made.kernel, NOWHERE, "file_operations.owner") == "?"
    assert [text.split(": ")[0] for text in made.kernel.warnings] == [
        f"the module with the operations at {at:#x} is not known" for at in (operations, NOWHERE)
    ]


def test_blocks() -> None:
    made = Tables()
    last = made.objects.make("blk_major_name", major=259, name="blkext")
    made.put("major_names", 4, made.objects.make("blk_major_name", major=4, name="x", next=last))
    assert device_numbers.blocks(made.kernel) == [Block(4, "x"), Block(259, "blkext")]


def test_damage() -> None:
    made = Tables()
    first = made.character(1, 0, "mem", 0)
    made.objects.set(first, "char_device_struct", next=first)
    made.character(2, 0, "pty", NOWHERE)
    made.put("chrdevs", 3, NOWHERE)
    made.character(4, 0, "tty", 0)
    # A probe that leads to itself, and one that is not mapped.
    made.objects.set(made.base, "probe", next=made.base)
    made.kernel.memory.number(made.map + 8, NOWHERE, 8)
    assert [one.name for one in device_numbers.characters(made.kernel)] == ["mem", "tty"]
    text = "\n".join(made.kernel.warnings)
    assert "loops back" in text
    assert "entries of chrdevs are missing" in text
    assert "the character devices at" in text
    assert "character devices are missing" in text


def test_no_symbol() -> None:
    with pytest.raises(AbsentError, match="no symbol cdev_map"):
        device_numbers.characters(Objects(LAYOUTS).kernel)


def test_overlapping_ranges() -> None:
    made = Tables()
    overlapping(made.kernel, made.kernel.symbol("chrdevs"))
    made.kernel.memory.reads = 0
    assert len(device_numbers.characters(made.kernel)) <= 1
    # A read for each bucket of both tables, and one for the probe that each ends in.
    assert made.kernel.memory.reads < 255 * 6
    assert any("the struct char_device_struct at" in text for text in made.kernel.warnings)


def test_buckets_share_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_numbers, "MAX_DEVICE_RANGES", 2)
    made = Tables()
    for major in range(1, 5):
        made.character(major, 0, "x", 0)
    assert [one.major for one in device_numbers.characters(made.kernel)] == [1, 2]
    assert any(
        "at most 2 structs char_device_struct are read" in text for text in made.kernel.warnings
    )
