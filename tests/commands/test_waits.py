"""``waits``: locks, owners, chains and deadlocks."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from tests.xen.patched import patched
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump, writing
from xenkdump_forge.kernels.v6_1 import blocked

Run = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(writing._BUILDERS, "modern", ("modern.build_with_blocked_tasks", 256 << 20))
        return write_dump(tmp_path_factory.mktemp("blocked") / "dump", like="modern")


@pytest.fixture
def run(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*options: str, status: int = 0) -> tuple[str, str]:
        found = main(["waits", *options, str(synthetic.vmlinux), str(synthetic.vmcore)])
        out, err = capsys.readouterr()
        assert found == status, err
        return out, err

    return call


@pytest.fixture(scope="module")
def kernel(synthetic: SyntheticDump) -> Any:
    return xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel


def by_pid(out: str) -> dict[int, Any]:
    return {task["pid"]: task for task in json.loads(out)["tasks"]}


def test_objects_and_owners(run: Run, kernel: Any) -> None:
    out, err = run("--json")
    tasks = by_pid(out)
    assert tasks.keys() == {1301, *(job.pid for job in blocked.JOBS)}
    expected = {
        blocked.FIRST: ("mutex", "mutex", "second_mutex", 1, blocked.SECOND),
        blocked.SECOND: ("mutex", "mutex", "first_mutex", 2, blocked.FIRST),
        blocked.THIRD: ("mutex", "mutex", "first_mutex", 2, blocked.FIRST),
        blocked.WRITER: ("rwsem", "rw_semaphore", "some_rwsem", 1, blocked.THIRD),
        blocked.COMPLETES: ("completion", "completion", "some_completion", 1, None),
        blocked.XENSTORE: (None, "wait_queue_head", "some_queue", 1, None),
        blocked.DOWN: ("semaphore", "semaphore", "some_semaphore", 1, None),
    }
    for pid, (kind, type_, symbol, waiters, owner) in expected.items():
        task = tasks[pid]
        assert task["kind"] == kind
        assert task["object"] == {
            "type": type_,
            "address": hex(kernel.symbols[symbol]),
            "symbol": symbol,
            "offset": 0,
            "waiters": waiters,
        }
        assert task.get("owner", {}).get("pid") == owner
        assert "doubt" not in task.get("owner", {})
    assert tasks[blocked.XENSTORE]["area"] == "xenbus"
    assert tasks[blocked.WRITER]["caller"] == "blocked_fn"
    assert err == ""


def test_only_the_function_is_known(run: Run) -> None:
    """Of dd, which waits for a page without a struct on its stack."""
    dd = by_pid(run("--json")[0])[1301]
    assert (dd["kind"], dd["caller"], "object" in dd) == ("folio", "filemap_fault", False)
    assert "folio (by its functions only)" in run()[0]


def test_a_semaphore(run: Run) -> None:
    out, _ = run()
    assert " <some_semaphore>, 1 waiting\n" in out
    assert "    waiting: 1407 (down)\n    owner: not recorded for semaphores\n" in out
    assert by_pid(run("--json")[0])[blocked.DOWN]["waiting"] == [blocked.DOWN]


def test_deadlock_and_chain(run: Run) -> None:
    out, _ = run("--json")
    assert json.loads(out)["deadlocks"] == [[blocked.FIRST, blocked.SECOND]]
    writer = by_pid(out)[blocked.WRITER]
    assert writer["chain"] == [blocked.WRITER, blocked.THIRD, blocked.FIRST, blocked.SECOND]
    lines = run()[0].splitlines()
    assert lines[0] == "DEADLOCK: 1401 (first) -> 1402 (second) -> 1401"
    assert lines[1].startswith("    1401 waits for mutex ffff")
    assert lines[1].endswith(" <second_mutex>, 1 waiting")
    assert "    chain: 1404 (writer) -> 1403 (third) -> 1401 (first) -> 1402 (second)" in lines


def test_the_operands(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    files = (str(synthetic.vmlinux), str(synthetic.vmcore))
    assert main(["waits", "--json", *files, str(blocked.WRITER), "systemd"]) == 0
    writer, init = json.loads(capsys.readouterr().out)["tasks"]
    assert (writer["pid"], init["pid"]) == (blocked.WRITER, 1)
    assert (init["kind"], init["caller"]) == (None, "ep_poll")
    assert main(["waits", *files, "99999"]) == 1


def patch_variable(
    kernel: Any, synthetic: SyntheticDump, name: str, offset: int, value: int
) -> Any:
    domain = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))
    at = domain.virtual.translate(kernel.symbols[name] + offset)
    return patched(Path(synthetic.vmcore), {at: value.to_bytes(8, "little")})


def test_an_owner_that_is_no_task(run: Run, kernel: Any, synthetic: SyntheticDump) -> None:
    with patch_variable(kernel, synthetic, "second_mutex", 0, kernel.symbols["init_uts_ns"] & ~7):
        tasks = by_pid(run("--json")[0])
    assert "object" not in tasks[blocked.FIRST]
    assert tasks[blocked.SECOND]["object"]["symbol"] == "first_mutex"


def test_a_broken_list(run: Run, kernel: Any, synthetic: SyntheticDump) -> None:
    offset = kernel.offset("mutex.wait_list")
    with patch_variable(kernel, synthetic, "second_mutex", offset, 0x1234):
        out, _ = run("--json")
    assert json.loads(out)["deadlocks"] == []
    assert "object" not in by_pid(out)[blocked.FIRST]


@pytest.mark.parametrize(
    ("name", "value", "doubt"),
    [("owner", None, "the last reader"), ("count", 2, "no writer holds it")],
)
def test_a_reader(
    name: str, value: int | None, doubt: str, run: Run, kernel: Any, synthetic: SyntheticDump
) -> None:
    if value is None:
        (third,) = (task for task in kernel.tasks() if task.pid == blocked.THIRD)
        value = third.address | 1
    offset = kernel.offset(f"rw_semaphore.{name}")
    with patch_variable(kernel, synthetic, "some_rwsem", offset, value):
        owner = by_pid(run("--json")[0])[blocked.WRITER]["owner"]
    assert owner["pid"] == blocked.THIRD
    assert doubt in owner["doubt"]


def test_without_uninterruptible_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_dump(tmp_path, like="modern")
    files = [str(made.vmlinux), str(made.vmcore)]
    assert main(["waits", "--domain", "1", *files]) == 0
    assert "no task is in state UN" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(20))
def test_any_words_on_the_stacks(
    seed: int, run: Run, kernel: Any, synthetic: SyntheticDump
) -> None:
    """Words of stacks and locks that are replaced by others of them: no object is made up."""
    rng = random.Random(seed)
    domain = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))
    jobs = {job.pid for job in blocked.JOBS}
    places = [kernel.symbols["first_mutex"] + at for at in range(0, 0x80, 8)]
    for task in kernel.tasks():
        if task.pid in jobs:
            top = task.stack + kernel.stack_size
            places += range(top - 0x400, top, 8)
    values = [kernel.pointer(place) for place in places]
    changes = {
        domain.virtual.translate(place): rng.choice(values).to_bytes(8, "little")
        for place in rng.sample(places, 60)
    }
    locks = {"first_mutex", "second_mutex", "some_rwsem", "some_completion", "some_queue"}
    locks |= {"some_semaphore"}
    with patched(Path(synthetic.vmcore), changes):
        tasks = by_pid(run("--json")[0])
    assert jobs <= tasks.keys()
    assert {task["object"].get("symbol") for task in tasks.values() if "object" in task} <= locks
