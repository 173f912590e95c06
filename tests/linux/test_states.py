"""The states of tasks, by version, against task_state_array and task_state_index()."""

import pytest

from xenkdump_fast.linux import states
from xenkdump_fast.linux.states import States
from xenkdump_fast.linux.tasks import Task, state_name

from .fakes import FakeKernel, words

ARRAY, STRINGS, UTS = 0x10000, 0x20000, 0x30000

#: task_state_array by version, from fs/proc/array.c.
ARRAYS = {
    "6.1.0": (
        "R (running)",
        "S (sleeping)",
        "D (disk sleep)",
        "T (stopped)",
        "t (tracing stop)",
        "X (dead)",
        "Z (zombie)",
        "P (parked)",
        "I (idle)",
    ),
    "4.4.0": (
        "R (running)",
        "S (sleeping)",
        "D (disk sleep)",
        "T (stopped)",
        "t (tracing stop)",
        "X (dead)",
        "Z (zombie)",
    ),
    "3.10.0": (
        "R (running)",
        "S (sleeping)",
        "D (disk sleep)",
        "T (stopped)",
        "t (tracing stop)",
        "Z (zombie)",
        "X (dead)",
        "x (dead)",
        "K (wakekill)",
        "W (waking)",
        "P (parked)",
    ),
    "2.6.18": (
        "R (running)",
        "S (sleeping)",
        "D (disk sleep)",
        "T (stopped)",
        "T (tracing stop)",
        "Z (zombie)",
        "X (dead)",
    ),
}

MODERN = [
    (0, 0, "RU"),
    (0x1, 0, "IN"),
    (0x2, 0, "UN"),
    (0x4, 0, "ST"),
    (0x8, 0, "TR"),
    (0x0, 0x10, "DE"),
    (0x80, 0x10, "DE"),
    (0x80, 0x20, "ZO"),
    (0x80, 0, "DE"),
    (0x40, 0, "PA"),
    (0x200, 0, "WA"),
    (0x800, 0, "NE"),
    (0x1000, 0, "UN"),
    (0x8000, 0, "UN"),
    (0x102, 0, "UN"),
    (0x104, 0, "ST"),
    (0x108, 0, "TR"),
    (0x402, 0, "ID"),
    (0x2001, 0, "IN"),
    (0x2002, 0, "UN"),
    (0x2402, 0, "ID"),
    (0x6001, 0, "IN"),
    (0x10000, 0, "??"),
]
BEFORE_4_14 = [
    (0x40, 0, "DE"),
    (0x40, 0x20, "ZO"),
    (0x40, 0x10, "DE"),
    (0x82, 0, "UN"),
    (0x84, 0, "ST"),
    (0x100, 0, "WA"),
    (0x200, 0, "PA"),
    (0x402, 0, "ID"),
]
#: 3.14 (ad86622b478e) swapped zombie and dead.
BEFORE_3_14 = [
    (state, {0x10: 0x20, 0x20: 0x10}.get(end, end), name) for state, end, name in BEFORE_4_14
]
#: TASK_NONINTERACTIVE was 64, TASK_DEAD 128 (2.6.19 to 2.6.24).
BEFORE_2_6_25 = [(0x41, 0, "IN"), (0x80, 0, "DE"), (0x80, 0x10, "ZO"), (0x80, 0x20, "DE")]


def kernel_of(release: str, array: bool) -> FakeKernel:
    kernel = FakeKernel({"task_state_array": ARRAY} if array else {})
    kernel.__dict__["release"] = release
    if array:
        for i, text in enumerate(ARRAYS[release]):
            kernel.memory.write(ARRAY + i * 8, words(8, STRINGS + i * 32))
            kernel.memory.write(STRINGS + i * 32, text.encode() + b"\0")
    return kernel


def task_in(state: int | None, exit_state: int = 0) -> Task:
    return Task(0, 1, 1, "task", 0, state, exit_state, 0, active=False, idle=False)


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.1.0", MODERN),
        ("4.4.0", BEFORE_4_14),
        ("3.10.0", BEFORE_3_14),
        ("2.6.18", BEFORE_2_6_25),
    ],
)
def test_letters(release: str, expected: list[tuple[int, int, str]], array: bool) -> None:
    found = states.of(kernel_of(release, array))
    assert [(s, e, states.letters(task_in(s, e), found)) for s, e, _ in expected] == expected


def test_a_state_that_cannot_be_read() -> None:
    assert states.letters(task_in(None), States()) == "??"


def test_a_frozen_task_is_not_shown_as_running() -> None:
    names = [state_name(task_in(state)) for state in (None, 0, 0x2001, 0x2, 0x8000)]
    assert names == [
        "unknown",
        "TASK_RUNNING",
        "TASK_INTERRUPTIBLE",
        "TASK_UNINTERRUPTIBLE",
        "0x8000",
    ]
