"""Mutations of the fuzzers' seeds: each gives a result or one of our exceptions."""

import random
import struct
from types import ModuleType

import pytest

from xenkdump_fast.limits import MAX_LOG_DESCRIPTORS
from xenkdump_fast.xen import domains

from . import domain_list, linux, printk
from .inputs import PAGE

#: Extreme values for number fields.
EXTREMES = (b"\0" * 8, b"\xff" * 8, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 7 + b"\x80")
BYTES = (0, 1, 0x7F, 0x80, 0xFF)


@pytest.mark.parametrize(("target", "step"), [(printk, 1), (domain_list, 61), (linux, 1)])
class TestMutations:
    def test_valid_inputs(self, target: ModuleType, step: int) -> None:
        for seed in target.seeds():
            target.check(seed)

    def test_numbers(self, target: ModuleType, step: int) -> None:
        for seed in target.seeds():
            for at in range(0, len(seed), step):
                for value in BYTES:
                    target.check(seed[:at] + bytes([value]) + seed[at + 1 :])
                extreme = EXTREMES[at % len(EXTREMES)]
                target.check(seed[:at] + extreme + seed[at + len(extreme) :])

    def test_truncated_inputs(self, target: ModuleType, step: int) -> None:
        for seed in target.seeds():
            for end in range(0, len(seed), step):
                target.check(seed[:end])

    def test_noise(self, target: ModuleType, step: int) -> None:
        chance = random.Random(1)
        for seed in target.seeds():
            for _ in range(1 + 200 // step):
                broken = bytearray(seed)
                for _ in range(chance.randrange(1, 20)):
                    broken[chance.randrange(len(broken))] = chance.randrange(256)
                target.check(bytes(broken))


@pytest.mark.timeout(30)
def test_an_impossible_number_of_frames() -> None:
    """Found by fuzzing: the search for a guest's frames ran to max_page, for hours."""
    seed = next(domain_list.seeds())
    at = 1 + 2 * 8 + 2 + domain_list.MAX_PAGE
    assert seed[at] == 16
    domain_list.check(seed[:at] + (1 << 39).to_bytes(8, "little") + seed[at + 8 :])


@pytest.mark.timeout(60)
def test_a_million_domains() -> None:
    """Each starts one word after the previous one; the ids overlap with addresses."""
    base, count = domain_list.BASES[8], 1 << 20
    words = struct.pack(f"<{count}Q", *(base + 8 * i for i in range(1, count + 1)))
    data = base.to_bytes(8, "little").ljust(domain_list.NEXT, b"\0") + words
    pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
    memory = domain_list.memory_of(8, pages)
    facts = domains.Facts(base, domain_list.NEXT, 2, domain_list.SIZE, None, ())
    found = domains.find(memory, facts, [])
    assert "more than 32752 domains" in found.warnings[-1]
    assert 0 < len(found.addresses) < len(found.warnings) <= 2 * domains.FIRST_RESERVED + 1


@pytest.mark.timeout(30)
@pytest.mark.parametrize("head", [0, (1 << 21) - 1])
def test_missing_descriptors(head: int) -> None:
    """Regression: a ring of 2^23 missing descriptors took 17 s and 1.6 GiB."""
    seed = list(printk.seeds())[3]
    at = 1 + 2 + 8 + 2
    assert seed[at] == 3
    for bits in (MAX_LOG_DESCRIPTORS.bit_length() - 1, 23):
        claim = bits.to_bytes(8, "little") + seed[at + 8 : at + 24] + head.to_bytes(8, "little")
        printk.check(seed[:at] + claim + seed[at + len(claim) :])
