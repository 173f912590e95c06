"""Grant tables of both versions, and the maptrack, in a layout that no version of Xen has."""

import pytest

from xenkdump_fast._native import AbsentError
from xenkdump_fast.xen import grants
from xenkdump_fast.xen.grants import GrantTable, Mapping

from .fake_structs import PAGE, START, FakeMember, FakeMemory, structs

MEMBERS = {
    "domain.grant_table": FakeMember(8, 8, "ptr"),
    "grant_table.domain": FakeMember(0, 8, "ptr"),
    "grant_table.gt_version": FakeMember(8, 4),
    "grant_table.nr_grant_frames": FakeMember(12, 4),
    "grant_table.max_grant_frames": FakeMember(16, 4),
    "grant_table.maptrack_limit": FakeMember(20, 4),
    "grant_table.shared_raw": FakeMember(24, 8, "ptr"),
    "grant_table.status": FakeMember(32, 8, "ptr"),
    "grant_table.active": FakeMember(40, 8, "ptr"),
    "grant_table.maptrack": FakeMember(48, 8, "ptr"),
    "active_grant_entry.pin": FakeMember(4, 4),
    "active_grant_entry.domid": FakeMember(0, 2),
    "active_grant_entry.mfn": FakeMember(8, 8, "struct"),
    "grant_mapping.ref": FakeMember(0, 4),
    "grant_mapping.flags": FakeMember(4, 2),
    "grant_mapping.domid": FakeMember(6, 2),
}
#: 40 bytes: 102 of them in a page, not a power of 2.
ACTIVE = 40
SIZES = {"struct active_grant_entry": ACTIVE, "struct grant_mapping": 16}


class FakeTable:
    """The grant table of a domain."""

    def __init__(self, version: int, frames: int = 1) -> None:
        self.version = version
        self.memory = memory = FakeMemory()
        self.domain, self.table = memory.new(), memory.new()
        memory.put(self.domain + 8, self.table)
        memory.put(self.table, self.domain)
        for at, value in ((8, version), (12, frames), (16, 64)):
            memory.put(self.table + at, value, 4)
        self.pages: dict[int, list[int]] = {}
        entries = frames * PAGE // (8 if version == 1 else 16)
        for at, count in ((24, frames), (32, frames), (40, entries // 102 + 1), (48, 1)):
            pointers = memory.new()
            memory.put(self.table + at, pointers)
            self.pages[at] = [memory.new() for _ in range(count)]
            for index, page in enumerate(self.pages[at]):
                memory.put(pointers + index * 8, page)

    def put(self, ref: int, data: bytes) -> None:
        size = 8 if self.version == 1 else 16
        at = self.pages[24][ref * size // PAGE] + ref * size % PAGE
        self.memory.put(at, int.from_bytes(data, "little"), size)

    def use(self, ref: int, domid: int, pin: int, mfn: int) -> None:
        at = self.pages[40][ref // 102] + ref % 102 * ACTIVE
        for offset, value, size in ((0, domid, 2), (4, pin, 4), (8, mfn, 8)):
            self.memory.put(at + offset, value, size)

    def read(self) -> GrantTable:
        return grants.read(structs(self.memory, MEMBERS, SIZES), self.domain)


def entry(flags: int, domid: int, frame: int) -> bytes:
    return b"".join(
        value.to_bytes(size, "little") for value, size in ((flags, 2), (domid, 2), (frame, 4))
    )


def test_version_1() -> None:
    table = FakeTable(1, frames=2)
    table.put(0, entry(1 | 1 << 3 | 1 << 4, 0, 0x1234))
    table.use(0, 0, 0x0102_0003, 0x99)
    table.put(600, entry(1 | 1 << 2, 3, 0x77))
    table.put(601, entry(2 | 1 << 2, 4, 0x78))
    # Revoked by the guest while it is still in use.
    table.use(1023, 5, 1 << 8, 0x55)
    found = table.read()
    assert (found.version, found.frames, found.max_frames, found.warnings) == (
        1,
        2,
        64,
        ["grant 1023: domain 5 uses it, but it is for domain 0"],
    )
    first, second, third, last = found.grants
    assert (first.ref, first.type, first.domain, first.frame, first.mfn) == (
        0,
        "access",
        0,
        0x1234,
        0x99,
    )
    assert first.flags == ["reading", "writing"]
    assert first.pins == {"host_write": 3, "device_write": 2, "device_read": 1}
    assert (second.ref, second.domain, second.flags, second.pins, second.mfn) == (
        600,
        3,
        ["readonly"],
        {},
        None,
    )
    assert (third.type, third.flags) == ("transfer", ["committed"])
    assert (last.ref, last.type, last.domain, last.pins) == (
        1023,
        "invalid",
        5,
        {"host_read": 1},
    )


def test_version_2() -> None:
    table = FakeTable(2)
    table.put(3, entry(1 | 1 << 8, 2, 0) + (0xABCDE_12345).to_bytes(8, "little"))
    table.use(3, 2, 1, 0x88)
    table.memory.put(table.pages[32][0] + 3 * 2, 1 << 4 | 1 << 3, 2)
    table.put(4, entry(3, 2, 0) + (7).to_bytes(8, "little"))
    found = table.read()
    assert found.warnings == []
    first, second = found.grants
    assert (first.frame, first.flags, first.mfn) == (
        0xABCDE_12345,
        ["reading", "writing", "sub_page"],
        0x88,
    )
    assert (second.type, second.frame) == ("transitive", None)


def test_maps() -> None:
    table = FakeTable(1)
    memory = table.memory
    memory.put(table.table + 20, 256, 4)
    for handle, (ref, flags, domid) in {2: (9, 2, 1), 3: (8, 0, 1), 255: (5, 5, 3)}.items():
        at = table.pages[48][0] + handle * 16
        for offset, value, size in ((0, ref, 4), (4, flags, 2), (6, domid, 2)):
            memory.put(at + offset, value, size)
    assert table.read().maps == [
        Mapping(2, 1, 9, host=True, device=False, read_only=False),
        Mapping(255, 3, 5, host=False, device=True, read_only=True),
    ]


def test_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    table = FakeTable(1)
    table.put(1, entry(1, 0, 1))
    memory = table.memory
    memory.put(table.table + 40, 0x1000)
    found = table.read()
    assert found.warnings == ["512 of 512 grants are not known: they cannot be read"]
    assert [grant.ref for grant in found.grants] == [1]
    memory.put(table.table + 12, 0xFFFF_FFFF, 4)
    monkeypatch.setattr(grants, "MAX_GRANTS", 2048)
    found = table.read()
    assert found.warnings[0] == "only 2048 of its 2199023255040 grants are shown"
    memory.put(table.table + 8, 7, 4)
    assert table.read().warnings == ["the version of its grant table is not known: 7"]
    memory.put(table.table, START)
    memory.put(table.domain + 8, table.table)
    memory.put(table.table, table.domain + 8)
    with pytest.raises(AbsentError, match="of another domain"):
        table.read()
    memory.put(table.domain + 8, 1 << 60)
    with pytest.raises(AbsentError, match="no grant table"):
        table.read()
