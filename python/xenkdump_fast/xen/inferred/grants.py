"""Layouts of grant tables: by the frames of the tables, which their domains own, and by the uses of
grants, which their users record too.

Since Xen 4.11 a grant table leads back to its domain, and the order of its members is the same.
"""

from collections.abc import Iterator, Mapping, Sequence

from ..._native import AbsentError
from ..._typing import NamedTuple
from ...limits import MAX_GRANTS, MAX_INFERRED_GRANTS, MAX_SAMPLED_DOMAINS
from ..frame_table import Table, max_page, owners_of
from ..memory import PAGE, XenMemory
from .layouts import Inferred, InferredMember, InferredTypes, pointer

#: Bytes of a struct grant_table that are searched. Xen 4.17 has 136.
_TABLE = 256
#: Bytes of an array of pointers: the default of 1024 frames of the maptrack take 8 KiB.
_POINTERS = 4 * PAGE
#: Bytes before the pointers that are searched for numbers.
_NUMBERS = 64
#: Bytes of an active_grant_entry and the offset of its machine frame: with trans_domain up to 4.17,
#: without since a2f520314169, each of a release build, of a debug build and with profiled locks.
_ACTIVE = ((40, 24), (48, 24), (56, 24), (32, 16), (40, 16), (48, 16))
#: Entries of a page of the maptrack, of 16 bytes since 4.6.
_PER_MAPTRACK = PAGE // 16
#: Kinds of shared entries (public ABI): GTF_permit_access.
_ACCESS = 1
_MAPPED = 3


class _Table(NamedTuple):
    """A grant table in memory."""

    domain: int
    address: int
    words: tuple[int, ...]
    data: bytes


class _Numbers(NamedTuple):
    """Offsets in a struct grant_table."""

    version: int
    frames: int
    limit: int
    pointers: int


def leads_back(memory: XenMemory, address: int, domain: int) -> int | None:
    """The offset in what may be a grant table of the pointer to its domain; None without one."""
    if address == domain or address % 8 or not memory.is_xen(address):
        return None
    words = memory.split(memory.struct(address, _TABLE) or b"")
    return words.index(domain) * 8 if domain in words else None


def infer(
    memory: XenMemory, domains: Mapping[int, int], size: int, frames: Table | None
) -> Inferred:
    """The layout; AbsentError if the dump does not prove one.

    ``domains`` are the ids by the addresses of their structs, which have ``size`` bytes. ``frames``
    is Xen's frame table.
    """
    return _Inference(memory, domains, size, frames).run()


class _Inference:
    def __init__(
        self, memory: XenMemory, domains: Mapping[int, int], size: int, frames: Table | None
    ) -> None:
        if memory.word != 8:
            raise AbsentError("32-bit versions of Xen are not supported")
        self._memory = memory
        self._ids = domains
        self._frames = frames
        self._structs: dict[int, tuple[int, ...]] = {}
        for address in list(domains)[:MAX_SAMPLED_DOMAINS]:
            data = memory.struct(address, size)
            if data is not None:
                self._structs[address] = memory.split(data)

    def run(self) -> Inferred:
        at, back, numbers, tables = self._tables()
        uses, active, mfn = self._active(numbers, tables)
        mapped = self._maps(numbers, tables, active)
        base = numbers.pointers
        members = {
            "domain.grant_table": pointer(at, 8),
            "grant_table.domain": pointer(back, 8),
            "grant_table.gt_version": InferredMember(numbers.version, 4),
            "grant_table.max_grant_frames": InferredMember(numbers.version + 4, 4),
            "grant_table.nr_grant_frames": InferredMember(numbers.frames, 4),
            "grant_table.maptrack_limit": InferredMember(numbers.limit, 4),
            "grant_table.shared_raw": pointer(base, 8),
            "grant_table.status": pointer(base + 8, 8),
            "grant_table.active": pointer(base + 16, 8),
            "grant_table.maptrack": pointer(base + 24, 8),
            "active_grant_entry.pin": InferredMember(0, 4),
            "active_grant_entry.domid": InferredMember(4, 2),
            "active_grant_entry.mfn": InferredMember(mfn, 8),
            "grant_mapping.ref": InferredMember(0, 4),
            "grant_mapping.flags": InferredMember(4, 2),
            "grant_mapping.domid": InferredMember(6, 2),
        }
        sizes = {"struct active_grant_entry": active, "struct grant_mapping": 16}
        owned = (
            "their frames are the domains' by Xen's frame table"
            if self._frames is not None
            else "without a frame table, the owners of their frames are not checked"
        )
        evidence = (
            f"{len(tables)} of {len(self._structs)} grant tables lead back to their domains, "
            f"{owned}; "
            + (
                f"{uses} grants in use and {mapped} mappings agree"
                if uses
                else "no grant is in use in any known layout of struct active_grant_entry"
            )
        )
        return Inferred(InferredTypes(members, sizes), evidence)

    def _tables(self) -> tuple[int, int, _Numbers, list[_Table]]:
        """Offset of domain.grant_table and of the pointer back, other offsets, and the tables."""
        votes: dict[tuple[int, int, _Numbers], list[_Table]] = {}
        for domain, words in self._structs.items():
            for index, value in enumerate(words):
                back = leads_back(self._memory, value, domain)
                data = None if back is None else self._memory.struct(value, _TABLE)
                if back is None or data is None:
                    continue
                table = _Table(domain, value, self._memory.split(data), data)
                for numbers in self._numbers(table, back):
                    votes.setdefault((index * 8, back, numbers), []).append(table)
        if not votes:
            raise AbsentError("no grant table leads back to its domain (Xen before 4.11?)")
        most = max(map(len, votes.values()))
        best = [key for key, tables in votes.items() if len(tables) == most]
        # Numbers may be equal: gt_version to that of frames, nr_v2_ops (96dfeb41774a) to that of
        # mapping handles. What is searched for is behind them.
        key = max(best, key=lambda one: one[2])
        if len({(at, back, numbers.pointers) for at, back, numbers in best}) > 1:
            raise AbsentError("more than one struct may be a domain's grant table")
        return *key, votes[key]

    def _numbers(self, table: _Table, back: int) -> Iterator[_Numbers]:
        """The places of the pointers and of the numbers before them."""
        words = table.words
        for index in range(2, min(back // 8 - 3, len(words) - 4)):
            shared, status, active, maptrack = words[index : index + 4]
            if not all(self._is_array(one) for one in (shared, active, maptrack)):
                continue
            if status and not self._is_array(status):
                continue
            frames = self._pages(shared)
            if not frames or not self._owns(table.domain, frames):
                continue
            base = index * 8
            for at in range(max(0, base - _NUMBERS), base - 16, 4):
                yield from self._block(table, at, base, len(frames), maptrack)

    def _block(
        self, table: _Table, at: int, base: int, frames: int, maptrack: int
    ) -> Iterator[_Numbers]:
        """gt_version, max_grant_frames, max_maptrack_frames, nr_grant_frames, nr_status_frames in a
        row, then maptrack_limit.
        """

        def number(offset: int) -> int:
            return int.from_bytes(table.data[offset : offset + 4], "little")

        version, most, most_maptrack, used, statuses = (number(at + i * 4) for i in range(5))
        # Number of frames whose status one page holds.
        per_frame = PAGE // 2 // (PAGE // 16)
        # Unused elements of the array are zero. The memory after its end is arbitrary.
        if used != frames and not used == most < frames:
            return
        if version not in (1, 2) or used > most or most_maptrack > MAX_GRANTS:
            return
        if statuses > -(-most // per_frame):
            return
        pages = len(self._pages(maptrack))
        for limit in range(at + 20, base, 4):
            if number(limit) == min(pages, most_maptrack) * _PER_MAPTRACK:
                yield _Numbers(at, at + 12, limit, base)

    def _is_array(self, address: int) -> bool:
        return bool(address) and address % 8 == 0 and self._memory.is_xen(address)

    def _pages(self, pointers: int) -> list[int]:
        """The pages at the start of an array of pointers, up to the first that is none."""
        words = self._memory.split(self._memory.struct(pointers, _POINTERS) or b"")
        found: list[int] = []
        for value in words:
            if not value or value % PAGE or not self._memory.is_xen(value):
                break
            found.append(value)
        return found

    def _owns(self, domain: int, pages: Sequence[int]) -> bool:
        """Whether a domain owns pages, by Xen's frame table; True without one."""
        mfns = [(self._memory.translate(page) or 0) // PAGE for page in pages]
        owners = self._owners(mfns)
        own = (self._memory.translate(domain) or 0) // PAGE
        return owners is None or all(owner in (own, -1) for owner in owners)

    def _owners(self, mfns: Sequence[int]) -> list[int] | None:
        import numpy as np

        frames = max_page(self._memory, self._frames)
        if frames is None or not mfns:
            return None
        held = np.array([mfn if mfn < frames else 0 for mfn in mfns], np.uint64)
        found = owners_of(self._memory, self._frames, held)
        return None if found is None else found.tolist()

    def _active(self, numbers: _Numbers, tables: Sequence[_Table]) -> tuple[int, int, int]:
        """How many grants in use prove it, the size of an active_grant_entry, and the offset of its
        machine frame.
        """
        scores: list[tuple[int, int, int]] = []
        silent: list[tuple[int, int, int]] = []
        for size, mfn in _ACTIVE:
            right = wrong = 0
            for table in tables:
                good, bad = self._uses(numbers, table, size, mfn)
                right, wrong = right + good, wrong + bad
            if right and not wrong:
                scores.append((right, size, mfn))
            elif not wrong:
                silent.append((0, size, mfn))
        if not scores:
            # No grant is in use with any of them.
            if len(silent) == len(_ACTIVE):
                return silent[0]
            raise AbsentError(
                "no layout of struct active_grant_entry agrees with the grants in use"
            )
        most = max(scores)[0]
        best = [score for score in scores if score[0] == most]
        if len({size for _, size, _ in best}) > 1:
            raise AbsentError("more than one layout of struct active_grant_entry is possible")
        return best[0]

    def _uses(self, numbers: _Numbers, table: _Table, size: int, mfn: int) -> tuple[int, int]:
        """How many entries that are in use agree with the offer and with the frame table, and how
        many do not.
        """
        version = int.from_bytes(table.data[numbers.version : numbers.version + 4], "little")
        entry = 8 if version == 1 else 16
        index = numbers.pointers // 8
        shared, active = self._pages(table.words[index]), self._pages(table.words[index + 2])
        per_page = PAGE // size
        right = wrong = 0
        mfns: list[int] = []
        for number, page in enumerate(active[: MAX_INFERRED_GRANTS // per_page]):
            data = self._memory.read(page, PAGE) or b""
            for place in range(len(data) // size):
                one = data[place * size : (place + 1) * size]
                if not any(one[:4]):
                    continue
                ref = number * per_page + place
                offer = b""
                if ref // (PAGE // entry) < len(shared):
                    at = shared[ref // (PAGE // entry)] + ref % (PAGE // entry) * entry
                    offer = self._memory.read(at, 4) or b""
                if len(offer) == 4 and offer[0] & 3 == _ACCESS and offer[2:4] == one[4:6]:
                    mfns.append(int.from_bytes(one[mfn : mfn + 8], "little"))
                else:
                    wrong += 1
        own = (self._memory.translate(table.domain) or 0) // PAGE
        owners = self._owners(mfns)
        for i, value in enumerate(mfns):
            agrees = value != 0 and (owners is None or owners[i] in (own, -1))
            right, wrong = right + agrees, wrong + (not agrees)
        return right, wrong

    def _maps(self, numbers: _Numbers, tables: Sequence[_Table], active: int) -> int:
        """How many mappings are of grants in use; AbsentError if most are not."""
        by_id = {self._ids[table.domain]: table for table in tables}
        index = numbers.pointers // 8
        right = wrong = 0
        for table in tables:
            for page in self._pages(table.words[index + 3])[: MAX_INFERRED_GRANTS // _PER_MAPTRACK]:
                data = self._memory.read(page, PAGE) or b""
                for at in range(0, len(data), 16):
                    flags = int.from_bytes(data[at + 4 : at + 6], "little")
                    if not flags & _MAPPED:
                        continue
                    ref = int.from_bytes(data[at : at + 4], "little")
                    owner = by_id.get(int.from_bytes(data[at + 6 : at + 8], "little"))
                    if owner is None:
                        continue
                    pages = self._pages(owner.words[index + 2])
                    number, place = divmod(ref, PAGE // active)
                    pin = None
                    if number < len(pages):
                        pin = self._memory.number(pages[number] + place * active, 4)
                    right, wrong = right + bool(pin), wrong + (not pin)
        if wrong > right:
            raise AbsentError(
                f"{wrong} of {right + wrong} mappings are of grants that are not in use"
            )
        return right
