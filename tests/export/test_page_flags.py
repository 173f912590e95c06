"""The kinds of pages, by page structs of each encoding."""

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.export.page_flags import (
    IS_CACHE,
    IS_CACHE_PRIVATE,
    IS_FREE,
    IS_UNUSABLE,
    IS_USER,
    KEPT,
    PageFlags,
)

START = 0xFFFF_EA00_0000_0000
COMMON = {
    "SIZE(page)": 64,
    "OFFSET(page.flags)": 0,
    "OFFSET(page.mapping)": 24,
    "OFFSET(page.private)": 40,
    "OFFSET(page._mapcount)": 48,
    "NUMBER(PG_lru)": 4,
    "NUMBER(PG_private)": 13,
    "NUMBER(PG_swapcache)": 10,
    "NUMBER(PG_swapbacked)": 19,
    "NUMBER(PG_hwpoison)": 22,
}
#: Linux 6.1, 6.12 and 7.3.
OLD = COMMON | {
    "OFFSET(page.compound_head)": 8,
    "OFFSET(page.compound_dtor)": 16,
    "NUMBER(PG_slab)": 9,
    "NUMBER(HUGETLB_PAGE_DTOR)": 2,
    "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": -129,
    "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)": -257,
}
TYPED = COMMON | {
    "OFFSET(page.compound_head)": 8,
    "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)": -(11 << 24),
    "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)": -(12 << 24),
    "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": -(16 << 24),
    "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)": -(15 << 24),
}
MASKED = {key: value for key, value in TYPED.items() if "compound" not in key} | {
    "OFFSET(page.compound_info)": 8
}


def page(
    flags: int = 0, head: int = 0, dtor: int = 0, mapping: int = 0, private: int = 0, count: int = 0
) -> bytes:
    words = struct.pack("<6Q", flags, head, dtor, mapping, 0, private)
    return (words + struct.pack("<I", count & 0xFFFF_FFFF)).ljust(64, b"\0")


def decoder(facts: dict[str, int], level: int = 31) -> PageFlags:
    text = "\n".join(f"{key}={value}" for key, value in facts.items()).encode()
    kernel: Any = SimpleNamespace(word=8, symbols={})
    return PageFlags(kernel, text, level, "x86_64")


def kinds(facts: dict[str, int], pages: list[bytes], first: int = 0) -> list[list[int]]:
    rows = np.frombuffer(b"".join(pages), np.uint8).reshape(-1, 64)
    pfns = np.arange(first, first + len(pages), dtype=np.uint64)
    return [part.tolist() for part in decoder(facts).kinds(rows, pfns)]


LRU, PRIVATE, SLAB, SWAP, BACKED = 1 << 4, 1 << 13, 1 << 9, 1 << 10, 1 << 19


@pytest.mark.parametrize("facts", [OLD, TYPED], ids=["6.1", "6.12"])
def test_kinds(facts: dict[str, int]) -> None:
    buddy = facts["NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)"]
    offline = facts["NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)"]
    slab = page(SLAB, mapping=1) if facts is OLD else page(mapping=1, count=-(11 << 24))
    expected = {
        page(): KEPT,
        page(LRU): IS_CACHE,
        page(LRU | PRIVATE): IS_CACHE_PRIVATE,
        page(LRU, mapping=0x1001): IS_USER,
        page(SWAP | BACKED): IS_CACHE,
        # PG_swapcache alone is another flag, and has been since 4.10.
        page(SWAP): KEPT,
        page(count=buddy, private=3): IS_FREE,
        page(count=offline): IS_UNUSABLE,
        page(1 << 22): IS_UNUSABLE,
        # The member is another one in pages of slabs.
        slab: KEPT,
    }
    found, order, _ = kinds(facts, list(expected))
    assert found == list(expected.values())
    assert order[6] == 3


def test_types_have_counts_below_them() -> None:
    """Since 6.11 the low bits of a page type belong to the owner."""
    found, _, _ = kinds(TYPED, [page(count=-(16 << 24) + 5), page(count=-(16 << 24))])
    assert found == [IS_FREE, IS_FREE]


def test_hugetlbfs() -> None:
    old = [page(), page(head=START + 1, dtor=2), page(head=START + 1)]
    assert kinds(OLD, old)[0] == [IS_USER, KEPT, KEPT]
    assert kinds(OLD, [page(), page(dtor=2)])[0] == [KEPT, KEPT]
    assert kinds(TYPED, [page(count=-(12 << 24))])[0] == [IS_USER]


@pytest.mark.parametrize(
    ("facts", "info"),
    [(OLD, START + 8 * 64 + 1), (MASKED, START + 8 * 64 + 1), (MASKED, -(64 << 3) + 1)],
    ids=["pointer", "pointer in 7.0", "mask"],
)
def test_heads(facts: dict[str, int], info: int) -> None:
    tail = page(head=info % (1 << 64))
    assert kinds(facts, [page(), page(), tail, tail], first=8)[2] == [8, 9, 8, 8]


def test_what_is_missing_is_named() -> None:
    for key in ("NUMBER(PG_lru)", "OFFSET(page.private)", "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)"):
        facts = {name: value for name, value in TYPED.items() if name != key}
        with pytest.raises(AbsentError, match="VMCOREINFO has no"):
            decoder(facts)
    assert decoder(TYPED).warnings == []
    (warning,) = decoder({key: TYPED[key] for key in TYPED if "HUGETLB" not in key}).warnings
    assert "pages of hugetlbfs" in warning
    (warning,) = decoder({key: TYPED[key] for key in TYPED if "compound" not in key}).warnings
    assert "compound pages" in warning


def test_structs_elsewhere_are_detected() -> None:
    with pytest.raises(AbsentError, match="the page structs are not at"):
        kinds(OLD, [page(head=0x1235)] * 64)
