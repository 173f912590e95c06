"""Detection of kernels by their uts structs alone."""

from collections.abc import Iterator
from typing import NamedTuple, cast

import pytest

from xenkdump_fast._native import AddressSpace, MemoryFault
from xenkdump_fast.budget import Budget
from xenkdump_fast.xen.guests import recognise, recognise_frames

PAGE = 4096
BASE = 0xFFFF_FFFF_8100_0000
RELEASE = "6.12.1-example"
VERSION = "#7 SMP PREEMPT_DYNAMIC Fri Jan  2 2026"
BANNER = f"Linux version {RELEASE} (who@where) (gcc 14) {VERSION}\n".encode()


class Searched(NamedTuple):
    """A fake SearchResult."""

    addresses: list[int]
    searched: int


class Run(NamedTuple):
    """A fake mapped run."""

    address: int
    size: int


class Bytes:
    """An address space with some bytes."""

    def __init__(self, start: int, data: bytes) -> None:
        self.start, self.data = start, data

    def read(self, address: int, size: int) -> bytes:
        at = address - self.start
        if at < 0 or at + size > len(self.data):
            raise MemoryFault(hex(address))
        return self.data[at : at + size]

    def iter_mapped(self, start: int, end: int) -> Iterator[Run]:
        if start <= self.start < end:
            yield Run(self.start, len(self.data))

    def search(self, needle: bytes, start: int, end: int, *, limit: int, most: int) -> Searched:
        # Unmapped virtual memory does not count.
        first = max(0, start - self.start)
        return self._search(needle, first, min(first + most, end - self.start), limit)

    def _search(self, needle: bytes, first: int, last: int, limit: int) -> Searched:
        found: list[int] = []
        at = self.data.find(needle, first, max(0, last))
        while at >= 0 and len(found) < limit:
            found.append(self.start + at)
            at = self.data.find(needle, at + 1, last)
        return Searched(found, max(0, min(last, len(self.data)) - first))


class ToLast(Bytes):
    """Memory that is searched up to the last address that is found."""

    def search(self, needle: bytes, start: int, end: int, *, limit: int, most: int) -> Searched:
        found = super().search(needle, start, end, limit=limit, most=most)
        if len(found.addresses) < limit:
            return found
        return found._replace(searched=found.addresses[-1] - start)


class Frames(Bytes):
    """Machine memory with some bytes: missing memory counts."""

    def search(self, needle: bytes, start: int, end: int, *, limit: int, most: int) -> Searched:
        last = min(end, start + most)
        found = self._search(needle, max(0, start - self.start), last - self.start, limit)
        return Searched(found.addresses, last - start)


def uts(nodename: str, *, release: str = RELEASE, version: str = VERSION) -> bytes:
    fields = ("Linux", nodename, release, version, "x86_64", "(none)")
    return b"".join(field.encode().ljust(65, b"\0") for field in fields)


def memory(*parts: bytes, start: int = BASE) -> AddressSpace:
    return cast(AddressSpace, Bytes(start, b"".join(part.ljust(PAGE, b"\0") for part in parts)))


def budget(size: int = 1 << 30) -> Budget:
    return Budget("kernels", size)


def test_a_kernel_needs_matching_banner_and_uts() -> None:
    found = recognise(memory(b"", BANNER, b"x" * 64 + uts("host")), 8, budget())
    assert found is not None
    assert (found.nodename, found.release, found.version) == ("host", RELEASE, VERSION)
    assert (found.address, found.offset) == (BASE + 2 * PAGE + 64, 2 * PAGE + 64)


@pytest.mark.parametrize(
    "parts",
    [
        (uts("host"),),
        (BANNER,),
        (BANNER, uts("host", release="5.10.0")),
        # A leftover of the first link stage of a 6.1 kernel.
        (BANNER.replace(b"#7 ", b"# "), uts("(none)", version=VERSION.replace("#7 ", "# "))),
    ],
    ids=["no banner", "no uts", "another's", "a template"],
)
def test_not_a_kernel(parts: tuple[bytes, ...]) -> None:
    assert recognise(memory(*parts), 8, budget()) is None


@pytest.mark.parametrize("copies", [0, 1, 2, 5, 70])
def test_copies_in_front_of_the_banner_and_the_uts_struct(copies: int) -> None:
    """Of the first stage of a link, or in a page cache; more than 64 are not compared."""
    data = copies * BANNER.replace(b"#7", b"#") + b"\0" + BANNER + b"\0"
    data += copies * uts("template", version=VERSION.replace("#7", "#")) + uts("guest")
    found = recognise(cast(AddressSpace, ToLast(BASE, data + bytes(PAGE))), 8, budget())
    if copies < 64:
        assert found is not None
        assert found.nodename == "guest"
    else:
        assert found is None


def test_a_uts_struct_at_a_known_offset_is_sufficient() -> None:
    space = memory(b"", b"x" * 64 + uts("other"))
    assert recognise(space, 8, budget()) is None
    found = recognise(space, 8, budget(), [PAGE + 64])
    assert found is not None
    assert found.nodename == "other"


def test_a_translated_guest_by_its_frames() -> None:
    inode = b"\0" * 20 + 0xEFFF_FFFE.to_bytes(4, "little")
    space = memory(
        uts("another guest") + inode,
        uts("container"),
        BANNER,
        uts("host") + inode,
        start=0x100 * PAGE,
    )
    found = recognise_frames(space, [(0x101, 1), (0x102, 2)], budget())
    assert found is not None
    # The kernel's uts struct, which is not the first match.
    assert found.nodename == "host"
    assert found.address is None
    assert recognise_frames(space, [(0x100, 1)], budget()) is None


def test_search_is_bounded_by_the_budget() -> None:
    space = memory(BANNER, b"", b"", uts("host"))
    remaining = budget(4 * PAGE + 4 * PAGE)
    assert recognise(space, 8, remaining) is not None
    assert remaining.remaining == 0
    assert recognise(space, 8, remaining) is None
    # The banner is found; the uts struct is beyond the budget.
    assert recognise(space, 8, budget(4 * PAGE + 3 * PAGE)) is None
    frames = memory(BANNER, uts("host"), start=0x100 * PAGE)
    remaining = budget(4 * PAGE)
    assert recognise_frames(frames, [(0x100, 1), (0x101, 1)], remaining) is not None
    assert remaining.remaining == 0
    assert recognise_frames(frames, [(0x100, 1), (0x101, 1)], remaining) is None


def test_a_run_of_frames_is_searched_to_its_end() -> None:
    """A guest with 1 GiB pages may have all its frames in one run, with the kernel anywhere."""
    start, far = 0x1000, 1 << 17
    kernel = BANNER.ljust(PAGE, b"\0") + uts("host")
    frames = cast(AddressSpace, Frames((start + far) * PAGE, kernel))
    found = recognise_frames(frames, [(start, 2 * far)], budget(1 << 40))
    assert found is not None
    assert found.nodename == "host"
