"""Xen's console ring, with pages that the dump may lack."""

from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.xen import console
from xenkdump_fast.xen.console_ring import Console
from xenkdump_fast.xen.host import XenHost
from xenkdump_fast.xen.memory import PAGE, XenMemory, xen_range

from ..linux.fakes import Memory, words

IMAGE = 0xFFFF_82D0_4000_0000
RING = 0xFFFF_8300_0001_0000
CONRING, PRODUCER, SIZE = IMAGE + 0x2000, IMAGE + 0x3000, IMAGE + 0x4000
LINES = [f"(XEN) line {i} of the console" for i in range(500)]


class Bytes(Memory):
    """As ``AddressSpace``."""

    def u8(self, address: int) -> int:
        return self.word(address, 1)


class FakeMemory(XenMemory):
    """Fake memory of Xen."""

    def __init__(self) -> None:
        made: dict[str, Any] = {
            "virtual": Bytes(),
            "dump": SimpleNamespace(memory_held=1 << 20),
            "word": 8,
            "_pages": {},
        }
        self.__dict__.update(made)


class Host:
    """A hypervisor with a ring of 16 KiB, and 10 KiB or more of text."""

    def __init__(self, text: bytes, symbols: bool, size: int = 1 << 14) -> None:
        self.memory = FakeMemory()
        self.bytes = cast(Memory, self.memory.virtual)
        wrapped = len(text) % size if len(text) > size else 0
        ring = text[len(text) - wrapped :] + text[max(0, len(text) - size) : len(text) - wrapped]
        self.bytes.write(RING, ring.ljust(size, b"\0"))
        self.bytes.write(CONRING, words(8, RING))
        self.bytes.write(PRODUCER, words(4, len(text)))
        self.bytes.write(SIZE, words(4, size))
        self.warnings: list[str] = []
        self.ring: Console | None = None
        self.dump = SimpleNamespace(path="vmcore", memory_held=1 << 20)
        self.facts = SimpleNamespace(head=IMAGE)
        self.pc = None
        self.symbols = self if symbols else None
        self._symbols = {"conring": CONRING, "conringp": PRODUCER, "conring_size": SIZE}

    def __contains__(self, name: str) -> bool:
        return name in self._symbols

    def __getitem__(self, name: str) -> int:
        return self._symbols[name]

    def get(self, name: str) -> int | None:
        return self._symbols.get(name)

    def lookup(self, address: int) -> Any:
        return SimpleNamespace(size=8)

    def read(self) -> Console:
        self.ring = None  # tests change the memory
        return console.read(cast(XenHost, self))


def text_of(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.parametrize("symbols", [True, False])
def test_a_complete_ring(symbols: bool) -> None:
    host = Host(text_of(LINES[:300]), symbols)
    found = host.read()
    assert (found.lines, found.overwritten, host.warnings) == (LINES[:300], False, [])


@pytest.mark.parametrize("symbols", [True, False])
def test_a_missing_page_in_the_text(symbols: bool) -> None:
    for page in range(2):
        host = Host(text_of(LINES[:300]), symbols)
        host.bytes.drop(RING + page * PAGE)
        found = host.read()
        assert not found.overwritten
        # Two lines are truncated.
        kept = [line for line in found.lines if line in LINES[:300]]
        assert len(found.lines) - len(kept) <= 2
        assert kept[-1] == LINES[299]
        assert 150 < len(kept) < 200
        assert host.warnings == ["4096 of 16384 bytes of Xen's console are not in the dump"]


@pytest.mark.parametrize("symbols", [True, False])
def test_pages_of_zeros_are_missing(symbols: bool) -> None:
    """As in a dump that makedumpfile wrote without zero pages: no text is lost."""
    host = Host(text_of(LINES[:300]), symbols)
    host.bytes.drop(RING + 3 * PAGE)
    assert host.read().lines == LINES[:300]
    assert host.warnings == []


def test_a_ring_that_was_overwritten() -> None:
    text = text_of(LINES * 2)
    host = Host(text, True)
    whole = host.read()
    assert whole.overwritten
    assert text.decode().endswith("\n".join(whole.lines[1:]) + "\n")
    host.bytes.drop(RING + 2 * PAGE)
    found = host.read()
    assert found.overwritten
    assert found.lines[-1] == LINES[-1]
    assert host.warnings == ["4096 of 16384 bytes of Xen's console are not in the dump"]


def test_a_full_ring_without_symbols() -> None:
    host = Host(text_of(LINES * 2)[: 1 << 14], False)
    assert host.read().overwritten
    assert host.warnings[0].startswith("the console ring is full")


def test_a_larger_ring_with_a_missing_page() -> None:
    host = Host(text_of(LINES * 3)[: 40 << 10], False, 1 << 16)
    host.bytes.drop(RING + 5 * PAGE)
    found = host.read()
    assert len(text_of(found.lines)) > (35 << 10)
    assert host.warnings == ["4096 of 65536 bytes of Xen's console are not in the dump"]


def test_a_ring_without_any_page() -> None:
    host = Host(text_of(LINES[:300]), True)
    for page in range(4):
        host.bytes.drop(RING + page * PAGE)
    with pytest.raises(AbsentError, match="cannot be read"):
        host.read()


@pytest.mark.parametrize("word", [4, 8])
def test_memory_without_pointers_to_pages_is_passed_over(word: Literal[4, 8]) -> None:
    first, end = xen_range(word)
    may_point = console._pages(word, first, end)
    for number in (0, 1, first - PAGE, first, first + PAGE, first + 1, end - PAGE, end, PAGE - 1):
        for at in (0, 3, 511):
            numbers = [0] * 512
            numbers[at] = number % (1 << 8 * word)
            data = b"".join(value.to_bytes(word, "little") for value in numbers)
            is_pointer = first <= numbers[at] < end and numbers[at] % PAGE == 0
            assert may_point(data) or not is_pointer, hex(number)
    # The test is exact where all bytes of the range matter.
    assert may_point((end - PAGE).to_bytes(word, "little"))
    assert not may_point((end - PAGE + 1).to_bytes(word, "little"))
    assert not may_point(bytes(PAGE))
    assert not may_point(b"")
