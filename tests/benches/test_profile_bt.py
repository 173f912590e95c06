"""The profile of ``bt -a``: the steps that it names, and how samples are attributed to them."""

from pathlib import Path

import pytest

from benches import profile_bt
from xenkdump_forge import write_dump


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> profile_bt.Turn:
    """One run on a Xen host, whose dom0 needs every step."""
    dump = write_dump(tmp_path_factory.mktemp("profile") / "dump")
    return profile_bt.one_turn(["bt", "-a", str(dump.vmlinux), str(dump.vmcore)], None)


def test_every_step_is_found(turn: profile_bt.Turn) -> None:
    assert turn.missing == []
    assert {label for _, _, label in profile_bt.STEPS} <= set(turn.own)


def test_all_of_the_time_is_in_a_row(turn: profile_bt.Turn) -> None:
    assert sum(turn.own.values()) == pytest.approx(turn.total)
    rows = profile_bt.grouped(turn.own)
    assert rows["imports: xenkdump_fast"] > 0
    assert sum(rows.values()) == pytest.approx(turn.total)


def test_a_step_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [("xenkdump_fast.cli", "gone", "a step"), ("xenkdump_fast.gone", "run", "another")]
    monkeypatch.setattr(profile_bt, "STEPS", steps)
    dump = write_dump(tmp_path / "dump")
    turn = profile_bt.one_turn(["bt", "-a", str(dump.vmlinux), str(dump.vmcore)], None)
    assert turn.missing == ["a step", "another"]


def test_samples_belong_to_what_ran() -> None:
    turn = profile_bt.Turn(0.0, {}, [])
    samples = """
        1.000000:      7fa1ca3298a5 dl_main (/usr/lib/ld-linux-x86-64.so.2)
        2.500000:      7fa1ca3298a5 _PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)
        3.000001:      7fa1ca3298a5 xenkdump::names::Key::of+0x1 (/venv/_native.abi3.so)
        3.000002:  ffffffff821f2fa7 exc_page_fault ([kernel.kallsyms])
    """
    profile_bt.sampled(turn, [2 * 10**9, 3 * 10**9], ["import re", "a step"], samples)
    assert turn.shares == {
        ("start of the interpreter", "libraries"): 0.25,
        ("import re", "Python"): 0.25,
        ("a step", "Rust"): 0.25,
        ("a step", "system"): 0.25,
    }
    assert turn.functions == {("a step", "xenkdump::names::Key::of"): 0.25}
