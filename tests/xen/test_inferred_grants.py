"""Layouts of grant tables that are inferred: several versions, and what contradicts them."""

from typing import NamedTuple

import numpy as np
import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import grants as reader
from xenkdump_fast.xen.frame_table import Table
from xenkdump_fast.xen.grants import GrantTable
from xenkdump_fast.xen.inferred import grants
from xenkdump_fast.xen.structs import Structs

from .fake_structs import PAGE, START, FakeMemory

#: Offset in a struct domain.
TABLE = 0x110


class Version(NamedTuple):
    """Offsets in a struct grant_table, and a struct active_grant_entry."""

    numbers: int
    limit: int
    pointers: int
    back: int
    active: int
    mfn: int


VERSIONS = {
    "4.20": Version(20, 44, 48, 96, 32, 16),
    "4.20 debug": Version(28, 52, 56, 112, 40, 16),
    "4.17": Version(28, 48, 56, 128, 40, 24),
    "4.11": Version(24, 44, 48, 104, 40, 24),
}


class FakeDomain:
    """A domain with a grant table."""

    def __init__(
        self, memory: FakeMemory, number: int, version: Version, frames: int = 1, maptrack: int = 0
    ) -> None:
        self.memory, self.id, self.version = memory, number, version
        self.address, self.table = memory.new(), memory.new()
        memory.put(self.address + TABLE, self.table)
        memory.put(self.table + version.back, self.address)
        for index, value in enumerate((1, 64, 1024, frames, 0)):
            memory.put(self.table + version.numbers + index * 4, value, 4)
        memory.put(self.table + version.limit, maptrack * 256, 4)
        self.shared = self.pages(0, frames)
        self.pages(1, 1)
        self.active = self.pages(2, 12)
        self.maptrack = self.pages(3, maptrack)

    def pages(self, index: int, count: int) -> list[int]:
        pointers = self.memory.new()
        self.memory.put(self.table + self.version.pointers + index * 8, pointers)
        pages = [self.memory.new() for _ in range(count)]
        for i, page in enumerate(pages):
            self.memory.put(pointers + i * 8, page)
        return pages

    def grant(self, ref: int, domain: int, mfn: int, pins: int) -> None:
        at = self.shared[0] + ref * 8
        self.memory.put(at, 0x19, 2)
        self.memory.put(at + 2, domain, 2)
        self.memory.put(at + 4, mfn, 4)
        per_page = PAGE // self.version.active
        one = self.active[ref // per_page] + ref % per_page * self.version.active
        self.memory.put(one, pins, 4)
        self.memory.put(one + 4, domain, 2)
        self.memory.put(one + self.version.mfn, mfn)

    def map(self, handle: int, domain: int, ref: int) -> None:
        at = self.maptrack[handle // 256] + handle % 256 * 16
        for offset, value, size in ((0, ref, 4), (4, 2, 2), (6, domain, 2)):
            self.memory.put(at + offset, value, size)


def infer(domains: list[FakeDomain], frames: Table | None = None) -> list[GrantTable]:
    memory = domains[0].memory
    found = grants.infer(memory, {one.address: one.id for one in domains}, PAGE, frames)
    structs = Structs(memory, found.types)
    return [reader.read(structs, one.address) for one in domains]


def hosts(name: str) -> list[FakeDomain]:
    memory = FakeMemory()
    version = VERSIONS[name]
    user = FakeDomain(memory, 0, version, maptrack=2)
    owner = FakeDomain(memory, 7, version, frames=2)
    mfn = owner.address - START >> 12
    owner.grant(1, 0, mfn, 1)
    # Beyond the first page of active entries.
    owner.grant(200, 0, mfn, 0x201)
    user.map(3, 7, 1)
    user.map(257, 7, 200)
    return [user, owner]


@pytest.mark.parametrize("name", VERSIONS)
def test_versions(name: str) -> None:
    user, owner = infer(hosts(name))
    assert (user.version, user.frames, user.max_frames, owner.frames) == (1, 1, 64, 2)
    assert [(one.ref, one.domain, one.pins, one.problem) for one in owner.grants] == [
        (1, 0, {"host_write": 1}, None),
        (200, 0, {"host_write": 1, "host_read": 2}, None),
    ]
    assert {one.mfn for one in owner.grants} == {one.frame for one in owner.grants}
    assert [(one.handle, one.domain, one.ref) for one in user.maps] == [(3, 7, 1), (257, 7, 200)]
    assert user.warnings == owner.warnings == []


@pytest.mark.parametrize("right", [True, False])
def test_the_owners_of_frames(right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    domains = hosts("4.17")
    own = {
        page - START >> 12: (one.address - START >> 12) if right else 1
        for one in domains
        for page in one.shared
    }
    granted = domains[1].address - START >> 12
    own[granted] = granted

    def owners(_memory: object, _table: object, mfns: "np.ndarray") -> "np.ndarray":
        return np.array([own.get(int(mfn), 0) for mfn in mfns], np.int64)

    monkeypatch.setattr(grants, "owners_of", owners)
    monkeypatch.setattr(grants, "max_page", lambda *_: 1 << 20)
    table = Table(0, 0, 32, 0, 0)
    if right:
        assert len(infer(domains, table)[1].grants) == 2
    else:
        with pytest.raises(AbsentError, match="no grant table leads back to its domain"):
            infer(domains, table)


def test_a_table_that_leads_to_no_domain() -> None:
    domains = hosts("4.17")
    for one in domains:
        one.memory.put(one.table + one.version.back, 0)
    with pytest.raises(AbsentError, match="no grant table leads back to its domain"):
        infer(domains)


def test_uses_that_contradict_the_offers() -> None:
    domains = hosts("4.17")
    owner = domains[1]
    owner.memory.put(owner.shared[0] + 1 * 8 + 2, 5, 2)
    with pytest.raises(AbsentError, match="agrees with the grants in use"):
        infer(domains)


def test_mappings_of_grants_that_are_not_in_use() -> None:
    domains = hosts("4.17")
    for handle in range(10, 15):
        domains[0].map(handle, 7, 100 + handle)
    with pytest.raises(AbsentError, match="5 of 7 mappings are of grants that are not in use"):
        infer(domains)


def test_no_grant_is_in_use() -> None:
    memory = FakeMemory()
    domain = FakeDomain(memory, 0, VERSIONS["4.20"])
    found = grants.infer(memory, {domain.address: 0}, PAGE, None)
    assert "no grant is in use in any known layout" in found.evidence
    assert "the owners of their frames are not checked" in found.evidence
    (read,) = infer([domain])
    assert (read.grants, read.maps) == ([], [])
