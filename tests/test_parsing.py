"""Parsing of untrusted numbers."""

import pytest

from xenkdump_fast.linux import tasks
from xenkdump_fast.linux.tasks import Task
from xenkdump_fast.parsing import number
from xenkdump_fast.xen import header
from xenkdump_fast.xen.console_ring import Console

#: More digits than int() converts.
LONG = "9" * 5000


@pytest.mark.parametrize(
    ("text", "base", "value"),
    [
        ("17", 10, 17),
        ("-17", 10, -17),
        ("0x1f", 16, 31),
        ("ffffffffffffffff", 16, (1 << 64) - 1),
        (str(-1 << 63), 10, -1 << 63),
        (str((-1 << 63) - 1), 10, None),
        (str(1 << 64), 10, None),
        ("", 10, None),
        ("pid", 10, None),
        (LONG, 10, None),
        (LONG, 16, None),
        ("0" * 5000, 10, None),
        ("1_0", 10, None),
        ("+1", 10, None),
        ("١٢", 10, None),
        ("1２", 16, None),
        ("0x10", 10, None),
        ("--1", 10, None),
        ("0x", 16, None),
        ("17", 0, 17),
        ("017", 0, 17),
        ("-0X1f", 0, -31),
        ("1f", 0, None),
        ("0x_1", 0, None),
        ("0b1", 0, None),
        ("17\r", 10, 17),
        (" 1f ", 16, 31),
        ("1\u00a0", 10, None),
    ],
)
def test_number(text: str, base: int, value: int | None) -> None:
    assert number(text, base) == value


def test_a_pcpu_of_thousands_of_digits() -> None:
    """Regression: ``sys --hypervisor`` failed."""
    ring = Console(["(XEN) Panic on CPU 3:", "(XEN) why"], False, "conring")
    assert header._reason(ring) == ("Panic on CPU 3: why", 3)
    ring = Console([f"(XEN) Panic on CPU {LONG}:", "(XEN) why"], False, "conring")
    assert header._reason(ring) == (f"Panic on CPU {LONG}: why", None)


@pytest.mark.parametrize("operand", [LONG, "f" * 5000, "-1", "", "x", "init"])
def test_operands_that_match_no_task(operand: str) -> None:
    task = Task(0xFFFF_8880_0000_0000, 1, 1, "systemd", 0, 0, 0, 0, active=False, idle=False)
    assert tasks.find([task], operand) == []
    assert tasks.find([task], "1") == tasks.find([task], "ffff888000000000") == [task]
