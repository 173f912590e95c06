"""Walks of random page tables, compared with a walker in plain Python."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xenkdump_fast._native import Dump, MemoryFault

from .machine import Machine

if TYPE_CHECKING:
    from xenkdump_fast._native import Paging

NONE = 2**64 - 1
WIDTHS: "dict[Paging, int]" = {"x86": 32, "x86-pae": 32, "x86_64": 48, "x86_64-la57": 57}

#: Tables share eight frames. An entry is absent, refers to one of them, maps a page, or is random.
entries = st.one_of(
    st.just(0),
    st.builds(
        lambda frame, flags: frame << 12 | flags & ~0x80 | 1,
        st.integers(0, 9),
        st.integers(0, 0xFFF),
    ),
    st.builds(lambda address: address & ~0x1FFF | 0x81, st.integers(0, 2**32 - 1)),
    st.builds(lambda address: address & ~0x3FFF_F000 | 0x81, st.integers(0, 2**64 - 1)),
    st.integers(0, 2**64 - 1),
)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    machine = Machine()
    for mfn in range(8):
        eight = draw(st.lists(entries, min_size=8, max_size=8))
        machine.frames[mfn] = bytearray(
            b"".join(entry.to_bytes(8, "little") for entry in eight) * 64
        )
    return machine


@st.composite
def addresses(draw: st.DrawFn, width: int) -> int:
    raw = draw(st.integers(0, 2**64 - 1))
    kind = draw(st.integers(0, 7))
    if kind == 0:
        return raw
    low = raw & (1 << width) - 1
    if width > 32 and low >> (width - 1):
        return low | (2**64 - (1 << width))
    return low


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data(), machine=machines(), root=st.integers(0, 0x7FFF))
def test_walks_agree_with_the_reference(
    saved: Callable[[Machine], Dump], data: st.DataObject, machine: Machine, root: int
) -> None:
    dump = saved(machine)
    for paging, width in WIDTHS.items():
        space = dump.virtual(root, paging)
        picks = data.draw(st.lists(addresses(width), min_size=1, max_size=12), label=paging)
        want = [machine.walk(paging, root, address) for address in picks]
        status = np.zeros(len(picks), np.uint8)
        many = space.translate(np.array(picks, np.uint64), status=status)
        assert many.tolist() == [NONE if machine_ is None else machine_ for machine_ in want]
        for address, expected in zip(picks, want, strict=True):
            try:
                assert space.translate(address) == expected
            except MemoryFault:
                assert expected is None
            if expected is not None and machine.read(expected, 1) is not None:
                assert space.read(address, 1) == machine.read(expected, 1)
