"""The offset of domains' UUIDs in struct domain."""

from uuid import UUID

import pytest

from xenkdump_fast.xen import infer
from xenkdump_fast.xen.layout import Layout

AT = 0x88
#: Both are UUIDs again from their fifth byte on, with four zeros at the end.
AMBIGUOUS = ("4054f585-d6e4-4578-975c-26e5aa6371f4", "76d190bb-f36b-4b68-8754-1abbbdf8ab77")


def inferred(*uuids: str) -> Layout:
    """The layout by domains with these UUIDs, and dom0, whose UUID is zeros."""
    structs = [
        infer._Struct(i, bytes(AT) + UUID(text).bytes + bytes(0x40), ())
        for i, text in enumerate((str(UUID(int=0)), *uuids))
    ]
    found = object.__new__(infer._Inference)
    found.layout, found.domains, found.dom0 = Layout(), structs, structs[0]
    found.uuid()
    return found.layout


def test_one_offset() -> None:
    layout = inferred(*AMBIGUOUS, "2f1f0b1c-8a4e-4c39-a7d5-5e6a7b8c9d01")
    assert layout.get("domain.uuid") == AT
    assert layout.warnings == []


def test_of_two_offsets_that_of_random_uuids() -> None:
    layout = inferred(*AMBIGUOUS)
    assert layout.get("domain.uuid") == AT
    assert layout.warnings == [
        "2 offsets in struct domain may be those of UUIDs: +0x88 is used, as only UUIDs there are "
        "random ones (version 4)"
    ]


@pytest.mark.parametrize("version", ["1", "5"])
def test_two_offsets_without_random_uuids(version: str) -> None:
    uuids = [f"{text[:14]}{version}{text[15:]}" for text in AMBIGUOUS]
    layout = inferred(*uuids)
    assert layout.get("domain.uuid") is None
    assert layout.warnings == [
        "2 offsets in struct domain may be those of UUIDs: the UUIDs of domains are not known"
    ]
