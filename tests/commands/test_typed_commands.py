"""``struct``, ``whatis``, ``p``: what they print of a synthetic dump, and wrong usage."""

from typing import Any

import pytest

import xenkdump_fast as xk
from tests.commands.running import Run
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("typed") / "dump", like="modern")


@pytest.fixture(scope="module")
def kernel(synthetic: SyntheticDump) -> Any:
    return xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel


@pytest.fixture
def run(synthetic: SyntheticDump, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    return Run(synthetic, capsysbinary)


def test_layouts_are_those_of_the_types(run: Run, kernel: Any) -> None:
    found = run.json("struct", "task_struct")
    assert found["size"] == kernel.types.sizeof("task_struct")
    expected = kernel.types.native.members("task_struct")
    assert {one["name"]: one["offset"] for one in found["members"]} == {
        name: member.offset for name, member in expected.items()
    }


def test_an_instance_has_the_values_in_memory(run: Run, kernel: Any) -> None:
    (task,) = (task for task in kernel.tasks() if task.pid == 1)
    (found,) = run.json("struct", "task_struct", f"{task.address:x}")["instances"]
    value = found["value"]
    assert (value["pid"], value["tgid"], value["comm"]) == (task.pid, task.tgid, task.comm)
    head = task.address + kernel.offset("task_struct.tasks")
    assert value["tasks"] == {
        "next": hex(kernel.pointer(head)),
        "prev": hex(kernel.pointer(head + kernel.word)),
    }
    lines = run("struct", "task_struct.pid,comm", f"{task.address:x}").splitlines()
    assert lines == [f"  pid = {task.pid}", f'  comm = "{task.comm}"']


def test_the_struct_around_a_member(run: Run, kernel: Any) -> None:
    at = kernel.symbols["init_task"] + kernel.offset("task_struct.tasks")
    for inside in ("task_struct.tasks", str(kernel.offset("task_struct.tasks"))):
        (found,) = run.json("struct", "task_struct.comm", f"{at:x}", "-l", inside)["instances"]
        assert found == {
            "address": hex(kernel.symbols["init_task"]),
            "value": {"comm": "swapper/0"},
        }


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        (["no_such_struct"], 1, "no type no_such_struct"),
        (["task_struct.nothing"], 1, "has no member nothing"),
        (["task_struct.pid.x"], 1, "is not a struct"),
        (["task_struct", "8"], 1, "0x8"),
        (["task_struct", "init_task", "0"], 2, "COUNT"),
        (["task_struct", "init_task", "5000"], 2, "too many"),
        (["-l", "x", "task_struct", "init_task"], 2, "neither an offset nor"),
        (["-l", "8", "task_struct"], 2, "needs an address"),
        (["-M", "nothing", "task_struct"], 1, "nothing"),
    ],
)
def test_struct_rejects(words: list[str], status: int, problem: str, run: Run) -> None:
    run("struct", *words, expected=status)
    assert problem in run.err


def test_whatis(run: Run) -> None:
    assert run("whatis", "modules").strip() == "struct list_head modules;"
    assert run("whatis", "list_head") == run("struct", "list_head")
    run("whatis", "schedule", expected=1)
    assert "schedule is a symbol without a type" in run.err
    found = run("whatis", "pid_t", "no_such_name", expected=1)
    assert "no_such_name is neither a variable nor a type" in run.err
    assert found == "typedef int pid_t;\nSIZE: 4\n"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("init_task.pid", "0"),
        ("(&init_task)->pid", "0"),
        ("(*&init_task).pid", "0"),
        ("((struct task_struct *)&init_task)->comm", '"swapper/0"'),
        ("init_task.pid + 3 - 1", "2"),
        ("-(init_task.pid + 3)", "-3"),
        ("sizeof(struct list_head)", "16"),
        ("init_task.comm[0]", "115 's'"),
        ("*init_task.comm", "115 's'"),
        ("(unsigned long)&init_task - (unsigned long)&init_task", "0"),
        ("0x10", "16"),
    ],
)
def test_expressions(text: str, same: str, run: Run) -> None:
    assert run("p", text) == f"{text} = {same}\n"


def test_per_cpu_instances(run: Run, kernel: Any) -> None:
    for cpu, task in kernel.active.items():
        found = run.json("struct", "rq.curr", f"runqueues:{cpu}")
        assert f"{task.address:#x}" in str(found)
    for wrong, problem in (
        ("runqueues", "runqueues is a per-CPU variable: runqueues:0 is that of CPU 0"),
        ("runqueues:99", "99 is not a CPU"),
        ("init_task:0", "init_task is not a per-CPU variable"),
    ):
        run("struct", "rq.curr", wrong, expected=1)
        assert problem in run.err


def test_per_cpu(run: Run, kernel: Any) -> None:
    values = run.json("p", "runqueues:a.curr")["values"]
    assert {one["cpu"]: int(one["value"], 16) for one in values} == {
        cpu: task.address for cpu, task in kernel.active.items()
    }
    assert run.json("p", "runqueues:1.curr")["values"][0]["value"] == values[1]["value"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a variable or a number is expected"),
        ("init_task.", "a member is expected"),
        ("init_task->nothing", "has no member"),
        ("&5", "has no address"),
        ("*init_task", "is not a pointer"),
        ("init_task[0]", "neither an array nor a pointer"),
        ("init_task + 1", "is not a number"),
        ("*(int *)0", "0x0"),
        ("runqueues:99", "is not a CPU"),
        ("runqueues.curr", "runqueues is a per-CPU variable: runqueues:0 is that of CPU 0"),
        ("&runqueues.curr->pid", "runqueues is a per-CPU variable"),
        ("init_task.comm[runqueues.curr]", "runqueues is a per-CPU variable"),
        ("init_task:0.pid", "init_task is not a per-CPU variable"),
        ("init_task:a", "init_task is not a per-CPU variable"),
        ("(struct nothing *)0", "no type"),
        ("init_task)", "not expected"),
        ("(init_task", "is expected"),
        ("init_task.pid $", "not part of an expression"),
        ("no_such_variable", "no variable"),
        ("(" * 2000, "too many"),
        ("*" * 2000 + "init_task", "too many"),
        ("1+" * 3000, "too long"),
    ],
)
def test_expressions_without_a_value(text: str, problem: str, run: Run) -> None:
    run("p", text, expected=1)
    assert problem in run.err


def test_a_member_of_all_cpus_is_named_once(run: Run, kernel: Any) -> None:
    lines = run("p", "runqueues:a.curr").splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [
        f"per_cpu(runqueues, {cpu}).curr" for cpu in sorted(kernel.active)
    ]
    assert run("p", "runqueues:a").startswith("per_cpu(runqueues, 0) =\n")


def test_addresses_of_members(run: Run, kernel: Any) -> None:
    at = kernel.symbols["init_task"]
    offsets = {one["name"]: one["offset"] for one in run.json("struct", "task_struct")["members"]}
    found = run.json("struct", "-o", "task_struct", "init_task")["members"]
    assert {one["name"]: int(one["address"], 16) - at for one in found} == offsets
    lines = run("struct", "-o", "list_head", "init_task").splitlines()
    assert lines == [
        "struct list_head {",
        f"  [{at:x}] struct list_head *next;",
        f"  [{at + 8:x}] struct list_head *prev;",
        "}",
        "SIZE: 16",
    ]
    # The address of the struct around a member; the end of the address space.
    inside = run("struct", "-o", "list_head", f"{at + 8:x}", "-l", "8").splitlines()
    assert inside == lines
    assert "  [7] struct list_head *prev;" in run("struct", "-o", "list_head", "f" * 16)
    (member,) = run("struct", "-o", "task_struct.pid", "init_task").splitlines()[1:-2]
    assert member == f"  [{at + offsets['pid']:x}] pid_t pid;"
    run("struct", "-o", "list_head", "init_task", "2", expected=2)


def test_unions(run: Run) -> None:
    layout = run("union", "thread_union")
    assert layout == run("struct", "thread_union")
    assert layout.splitlines()[::3] == ["union thread_union {", "SIZE: 16384"]
    found = run.json("union", "thread_union", "init_task")["instances"]
    assert found == run.json("struct", "thread_union", "init_task")["instances"]
    run("union", "list_head", expected=1)
    assert "list_head is not a union" in run.err
    run("union", "no_such_union", expected=1)


def test_task(run: Run, kernel: Any) -> None:
    (task,) = (task for task in kernel.tasks() if task.pid == 1)
    heading = f'PID: 1        TASK: {task.address:x}  CPU: {task.cpu:<3}  COMMAND: "{task.comm}"'
    text = run("task", "1").splitlines()
    assert text[:2] == [heading, "struct task_struct {"]
    whole = run("struct", "task_struct", f"{task.address:x}").splitlines()
    assert text[1 : 1 + len(whole)] == whole
    assert text[1 + len(whole) :][:2] == ["", "struct thread_info {"]
    assert run("task", "-R", "pid,comm", "1").splitlines() == [
        heading,
        "  pid = 1",
        f'  comm = "{task.comm}"',
    ]
    (found,) = run.json("task", "1")["tasks"]
    assert (found["task"], found["task_struct"]["pid"]) == (hex(task.address), 1)
    (found,) = run.json("task", "-R", "comm", "1")["tasks"]
    assert found["members"] == {"comm": task.comm}
    assert "task_struct" not in found
    run("task", "-R", "no_such_member", "1", expected=1)
    assert "no_such_member: not a member of task_struct or thread_info" in run.err
    run("task", "99999", expected=1)


def test_elements_of_members(run: Run, kernel: Any) -> None:
    at = f"{kernel.symbols['init_task']:x}"
    assert run("struct", "task_struct.comm[3],pid", at).splitlines() == [
        f"  comm[3] = {ord('p')} 'p'",
        "  pid = 0",
    ]
    (whole,) = run.json("struct", "task_struct.comm", "-o")["members"]
    (third,) = run.json("struct", "task_struct.comm[0x3]", "-o")["members"]
    assert (third["offset"], third["size"], third["type"]) == (whole["offset"] + 3, 1, "char")
    for path in ("comm[16]", "comm[0][0]", "pid[0]", "comm[x]", "comm[]", "comm[-1]", "[1]"):
        for where in ([at], []):
            run("struct", f"task_struct.{path}", *where, expected=1)
    run("task", "-R", "comm[1]", "1")
