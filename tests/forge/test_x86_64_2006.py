"""The kind ``2006-x86_64``."""

from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_forge import SyntheticDump

from .walk import Core


@pytest.fixture(scope="module")
def dom0(dump_of: Callable[[str], SyntheticDump]) -> dict[str, Any]:
    found: dict[str, Any] = dump_of("2006-x86_64").plan["domains"][0]
    return found


@pytest.fixture(scope="module")
def core(core_of: Callable[[str], Core]) -> Core:
    return core_of("2006-x86_64")


def test_the_note_has_an_mfn(core: Core, dom0: dict[str, Any]) -> None:
    found = [int.from_bytes(d, "little") for _, kind, d in core.notes if kind == 0x10000001]
    assert [len(d) for _, kind, d in core.notes if kind == 0x10000001] == [8, 8]
    assert found[0] == int(dom0["root"], 16) >> 12


def test_a_system_call_saves_nine_registers(dom0: dict[str, Any]) -> None:
    called = [t for t in dom0["tasks"] if t["frames"] and t["frames"][-1].get("user")]
    saved = {len(t["user_registers"]) for t in called}
    assert saved == {15, 21}  # 21: after an exception
    for each in called:
        last = each["frames"][-2]
        foot = int(each["user_registers_at"], 16)
        if len(each["user_registers"]) == 15:
            # The return address is in pt_regs, in the slot of rbx.
            assert int(last["slot"], 16) == foot + 40


def test_a_return_address_may_be_a_label(dom0: dict[str, Any]) -> None:
    labels = {
        (f["function"], f.get("label"))
        for t in dom0["tasks"]
        for f in t["frames"]
        if f.get("label")
    }
    assert ("schedule", "thread_return") in labels
    assert ("error_entry", "error_exit") in labels
    assert ("system_call", "ret_from_sys_call") in labels
