"""One broken item does not hide the others."""

import pytest

from tests.xen.patched import patched
from xenkdump_fast import AbsentError, MemoryFault, cli, isolation, session
from xenkdump_fast._contexts import suppress
from xenkdump_fast.isolation import isolated
from xenkdump_fast.linux import backtrace
from xenkdump_fast.output.lazy import Lazy
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("isolation") / "dump", "modern")


def fail_at(wrong: int, error: Exception, warnings: list[str]) -> list[int]:
    def make(item: int) -> int:
        if item == wrong:
            raise error
        return item

    return list(
        Lazy(range(4), make, "number", problem=lambda n: f"number {n}", warn=warnings.append)
    )


def test_missing_data_is_a_warning() -> None:
    warnings: list[str] = []
    assert fail_at(2, MemoryFault("no page"), warnings) == [0, 1, 3]
    assert warnings == ["number 2: no page"]


def test_a_bug_is_a_warning_that_names_the_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    with pytest.raises(OverflowError):
        fail_at(1, OverflowError("too big"), warnings)
    monkeypatch.setattr(isolation, "strict", False)
    assert fail_at(1, OverflowError("too big"), warnings) == [0, 2, 3]
    assert warnings == ["number 1: internal error: OverflowError: too big"]


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("disk"), KeyboardInterrupt(), AbsentError("no types")]
)
def test_errors_that_concern_all_items_are_raised(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "strict", False)
    with pytest.raises(type(error)), isolated("item", pytest.fail, MemoryFault):
        raise error


@pytest.mark.parametrize("form", ["bt --all", "bt --all --json"])
def test_one_task_that_fails(
    form: str,
    synthetic: SyntheticDump,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [str(synthetic.vmlinux), str(synthetic.vmcore)]
    monkeypatch.setattr(isolation, "strict", False)
    assert cli.main([*form.split(), *files]) == 0
    intact = capsys.readouterr()
    trace = backtrace.trace

    def damaged(kernel, unwinder, task, *rest):  # type: ignore[no-untyped-def]
        if task.pid == 1:
            raise IndexError("oops")
        return trace(kernel, unwinder, task, *rest)

    monkeypatch.setattr(backtrace, "trace", damaged)
    assert cli.main([*form.split(), *files]) == 0
    found = capsys.readouterr()
    word = "PID: " if form == "bt --all" else '"pid": '
    assert found.out.count(word) == intact.out.count(word) - 1 > 10
    assert "task 1 at 0x" in found.err
    assert found.err.endswith("has no backtrace: internal error: IndexError: oops\n")


@pytest.mark.parametrize("value", [0, 1, 4, 0xFFFF_FFFF_FFFF_FFFF])
def test_a_stack_of_one_word(
    value: int, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no byte before a return address of 0. Regression: a traceback."""
    domain = session.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))
    kernel = domain.kernel
    task = next(task for task in kernel.tasks() if task.pid == 1)
    sp = kernel.read(task.address, "thread.sp")
    changes = {
        domain.virtual.translate(at): value.to_bytes(8, "little")
        for at in range(sp, sp + kernel.types.sizeof("inactive_task_frame"), 8)
    }
    command = ["bt", "--all", str(synthetic.vmlinux), str(synthetic.vmcore)]
    with patched(synthetic.vmcore, changes):
        assert cli.main(command) == 0
    out, err = capsys.readouterr()
    assert out.count("PID: ") == len(kernel.tasks())
    assert f"(unknown) at {value:016x}" in out
    assert "-0" not in out
    assert "internal error" not in err


def test_errors_are_suppressed_by_their_type() -> None:
    with suppress(KeyError, OSError):
        raise FileNotFoundError
    with suppress(KeyError):
        pass
    with pytest.raises(ValueError, match="other"), suppress(KeyError, OSError):
        raise ValueError("other")
