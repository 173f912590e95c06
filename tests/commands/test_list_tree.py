"""``list`` and ``tree``: what they print of a synthetic dump, damage, and wrong usage."""

from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from tests.commands.running import Run
from tests.xen.patched import patched
from xenkdump_forge import SyntheticDump, write_dump, writing
from xenkdump_forge.kernels.v6_1 import blocked


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(writing._BUILDERS, "modern", ("modern.build_with_blocked_tasks", 256 << 20))
        return write_dump(tmp_path_factory.mktemp("linked") / "dump", like="modern")


@pytest.fixture(scope="module")
def domain(synthetic: SyntheticDump) -> xk.Domain:
    return xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))


@pytest.fixture(scope="module")
def tasks(domain: xk.Domain) -> dict[int, Any]:
    return {task.pid: task for task in domain.kernel.tasks() if task.pid}


class ListRun(Run):
    def addresses(self, command: str, *words: str, expected: int = 0) -> list[int]:
        self.printed = self.json(command, *words, expected=expected)
        assert self.printed["count"] == len(self.printed["entries"])
        return [int(entry["address"], 16) for entry in self.printed["entries"]]


@pytest.fixture
def run(synthetic: SyntheticDump, capsysbinary: pytest.CaptureFixture[bytes]) -> ListRun:
    return ListRun(synthetic, capsysbinary)


class TestList:
    def test_the_tasks(self, run: ListRun, domain: xk.Domain, tasks: dict[int, Any]) -> None:
        leaders = [task.address for task in tasks.values() if task.pid == task.tgid]
        init = domain.kernel.symbols["init_task"]
        head = f"init_task+{domain.kernel.offset('task_struct.tasks')}"
        for words in (
            ("-H", head, "-o", "task_struct.tasks"),
            ("-H", "task_struct.tasks", head),
            ("-H", head, "-o", str(domain.kernel.offset("task_struct.tasks"))),
        ):
            assert sorted(run.addresses("list", *words)) == sorted(leaders)
        embedded = run.addresses("list", "-E", "-o", "task_struct.tasks", "init_task")
        assert embedded[0] == init
        assert sorted(embedded[1:]) == sorted(leaders)
        # crash's -h.
        assert embedded == run.addresses("list", "task_struct.tasks", "-h", "init_task")
        assert embedded == run.addresses("list", "-h", "-o", "task_struct.tasks", "init_task")
        backward = run.addresses("list", "-r", "-E", "-o", "task_struct.tasks", "init_task")
        assert backward == [init, *embedded[:0:-1]]

    def test_members(self, run: ListRun, tasks: dict[int, Any]) -> None:
        words = ("-E", "task_struct.tasks", "init_task", "-s", "task_struct.pid,comm")
        run.addresses("list", *words)
        for entry in run.printed["entries"][1:]:
            task = tasks[entry["value"]["pid"]]
            assert (task.comm, hex(task.address)) == (entry["value"]["comm"], entry["address"])
        lines = run("list", *words).splitlines()
        assert lines[1:3] == ["  pid = 0", '  comm = "swapper/0"']
        assert int(lines[0], 16) == int(run.printed["entries"][0]["address"], 16)

    def test_the_addresses_are_those_of_a_member(self, run: ListRun, domain: xk.Domain) -> None:
        head = f"init_task+{domain.kernel.offset('task_struct.tasks')}"
        words = ("-H", head, "-l", "task_struct.tasks", "-s", "task_struct.comm")
        nodes = run.addresses("list", *words)
        first = run.printed["entries"][0]["value"]
        structs = run.addresses("list", "-H", head, "-o", "task_struct.tasks")
        offset = domain.kernel.offset("task_struct.tasks")
        assert nodes == [address + offset for address in structs]
        assert first == {"comm": "systemd"}

    def test_pointers_to_structs(
        self, run: ListRun, domain: xk.Domain, tasks: dict[int, Any]
    ) -> None:
        kernel = domain.kernel
        parents = [tasks[blocked.FIRST].address]
        while parents[-1] != kernel.symbols["init_task"]:
            parents.append(kernel.read(parents[-1], "task_struct.real_parent"))
        # init_task is its own parent.
        words = ("task_struct.real_parent", f"{parents[0]:x}")
        found = run.addresses("list", *words, expected=1)
        assert found == parents
        assert "loops back" in run.printed["failure"]
        assert len(found) == 3
        assert run.addresses("list", *words, "-e", "init_task") == parents[:-1]

    def test_hlist(self, run: ListRun, tasks: dict[int, Any]) -> None:
        found = run.addresses("list", "--hlist", "-o", "task_struct.pid_links", "some_hlist")
        assert found == [tasks[pid].address for pid in (blocked.THIRD, blocked.FIRST)]

    def test_a_loop(
        self, run: ListRun, domain: xk.Domain, tasks: dict[int, Any], synthetic: SyntheticDump
    ) -> None:
        kernel = domain.kernel
        third, first = tasks[blocked.THIRD].address, tasks[blocked.FIRST].address
        link = first + kernel.offset("task_struct.pid_links")
        at = domain.virtual.translate(link)
        with patched(Path(synthetic.vmcore), {at: link.to_bytes(8, "little")}):
            words = ("--hlist", "task_struct.pid_links", "some_hlist")
            assert run.addresses("list", *words, expected=1) == [third, first]
            assert "loops back" in run.printed["failure"]
        with patched(Path(synthetic.vmcore), {at: (0x4321).to_bytes(8, "little")}):
            run("list", "--hlist", "task_struct.pid_links", "some_hlist", expected=1)
            assert "breaks off" in run.err

    @pytest.mark.parametrize(
        ("words", "status", "problem"),
        [
            (["8"], 1, "0x8"),
            (["-H", "8"], 1, "0x8"),
            (["no_such_symbol"], 1, "neither an address"),
            (["1", "2", "3"], 2, "one START"),
            (["-o", "1", "1", "init_task"], 2, "one START"),
            (["-r", "init_task"], 2, "needs -H"),
            (["-l", "8", "init_task"], 2, "needs -s"),
            (["-o", "-8", "init_task"], 2, "no offset"),
            (["-o", "x", "init_task"], 2, "neither an offset nor"),
            (["-o", "task_struct.nothing", "init_task"], 1, "has no member"),
            (["-s", "task_struct.nothing", "init_task"], 1, "has no member"),
            (["-s", "nothing", "init_task"], 1, "no type nothing"),
        ],
    )
    def test_rejects(self, words: list[str], status: int, problem: str, run: ListRun) -> None:
        run("list", *words, expected=status)
        assert problem in run.err


class TestTree:
    WORDS = ("some_tree", "-o", "task_struct.se.run_node")

    def test_in_order(self, run: ListRun, tasks: dict[int, Any]) -> None:
        pids = [blocked.FIRST, blocked.SECOND, blocked.THIRD]
        found = run.addresses("tree", *self.WORDS, "-s", "task_struct.pid")
        assert found == [tasks[pid].address for pid in pids]
        assert [entry["value"]["pid"] for entry in run.printed["entries"]] == pids
        lines = run("tree", *self.WORDS, "-s", "task_struct.pid", "-x").splitlines()
        assert lines[:2] == [f"{found[0]:x}", f"  pid = {pids[0]:#x}"]

    def test_below_a_node(self, run: ListRun, domain: xk.Domain, tasks: dict[int, Any]) -> None:
        node = tasks[blocked.THIRD].address + domain.kernel.offset("task_struct.se.run_node")
        found = run.addresses("tree", "-N", f"{node:x}", *self.WORDS[1:])
        assert found == [tasks[blocked.THIRD].address]

    def test_damage(
        self, run: ListRun, domain: xk.Domain, tasks: dict[int, Any], synthetic: SyntheticDump
    ) -> None:
        kernel = domain.kernel
        parent = kernel.offset("task_struct.se.run_node")
        at = domain.virtual.translate(tasks[blocked.THIRD].address + parent)
        with patched(Path(synthetic.vmcore), {at: bytes(8)}):
            found = run.addresses("tree", *self.WORDS, expected=1)
        assert found == [tasks[pid].address for pid in (blocked.FIRST, blocked.SECOND)]
        assert "after 2 entries: the parent of the node" in run.printed["failure"]

    @pytest.mark.parametrize(
        ("words", "status", "problem"),
        [
            (["8"], 1, "0x8"),
            (["-t", "maple", "init_task", "-o", "8"], 2, "only with the type rbtree"),
            (["-i", "init_task"], 2, "not with the type rbtree"),
            (["-t", "maple", "some_tree"], 1, "maple_tree"),
        ],
    )
    def test_rejects(self, words: list[str], status: int, problem: str, run: ListRun) -> None:
        run("tree", *words, expected=status)
        assert problem in run.err
