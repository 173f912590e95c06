"""The section of one domain."""

from collections.abc import Iterator, Sequence
from typing import Literal

from ..limits import MAX_REPORT_NAMED
from .blocks import Block, Cell, Facts, Lines, Note, Picture, Section, Span, Table
from .model import Domain, Kernel, P2mPicture, Stack, Task, Vcpu, Wait
from .parts import date, duration, frame_line, function_id, log_lines, registers, size

#: Functions that are listed with the tasks in them.
_MAX_FUNCTIONS = 400


def section(one: Domain, kind: Literal["Xen host", "bare machine", "file of a domain"]) -> Section:
    """What is known of a domain."""
    number = one["id"]
    title = {"Xen host": f"Domain {number}", "bare machine": "The machine"}.get(kind, "The domain")
    if number == 0 and kind == "Xen host":
        title = "Domain 0 (dom0)"
    kernel = one["kernel"]
    parts = [_vcpus(one)]
    blocks: list[Block] = [Facts(list(_facts(one, kernel, kind)))]
    if one["why"] is not None:
        blocks.append(Note(f"No kernel: {one['why']}", "missing"))
    if kernel is not None:
        parts += _of_kernel(number, kernel)
    if one["p2m"] is not None:
        parts.append(_p2m(number, one["p2m"]))
    return Section(f"d{number}", title, blocks, parts, domain=number)


def _facts(one: Domain, kernel: Kernel | None, kind: str) -> Iterator[tuple[str, Cell]]:
    yield "Kind", one["kind"]
    if one["nodename"] is not None:
        yield "Node name", one["nodename"]
    if one["uuid"] is not None:
        yield "UUID", one["uuid"]
    if one["state"]:
        yield "State", ", ".join(one["state"])
    elif kind == "Xen host":
        yield "State", Span("not known: without the DWARF of xen-syms", mark="missing")
    if one["pages"] is not None:
        yield "Memory", f"{size(one['pages'] * 4096)} ({one['pages']} pages)"
    if one["p2m_sources"]:
        yield "P2M by", ", ".join(one["p2m_sources"])
    if kernel is None:
        return
    missing = Span("not known", mark="missing")
    yield "Kernel", kernel["release"] or missing
    yield "Build", kernel["version"] or missing
    yield "Symbols and types", kernel["image"]
    yield "Command line", kernel["command_line"] or missing
    offline = f", {kernel['offline']} offline" if kernel["offline"] else ""
    yield "CPUs", f"{kernel['cpus']}{offline}"
    yield "Date", date(kernel["date"]) or missing
    yield "Uptime", duration(kernel["uptime"]) or missing
    if kernel["memory"] is not None:
        yield "Memory of the kernel", size(kernel["memory"])
    if kernel["panic"] is not None:
        yield "Panic", Span(kernel["panic"], mark="bad")
    taint = kernel["taint"]
    if taint is None:
        yield "Taint", missing
    elif not taint["mask"]:
        yield "Taint", "not tainted"
    else:
        yield "Taint", Span(f"{taint['letters']}: {'; '.join(taint['reasons'])}", mark="doubt")


def _task(number: int, task: Task) -> Span:
    return Span(f"{task['comm']} ({task['pid']})", to=f"d{number}-t{task['task']}")


def _vcpus(one: Domain) -> Section:
    number = one["id"]
    what = "CPU" if one["kind"] == "bare machine" else "vCPU"
    rows = []
    parts = []
    for vcpu in one["vcpus"]:
        task = vcpu["task"]
        has_part = bool(vcpu["frames"] or vcpu["registers"])
        link = f"d{number}-v{vcpu['id']}" if has_part else None
        rows.append(
            (
                Span(str(vcpu["id"]), to=link),
                "" if vcpu["pcpu"] is None else str(vcpu["pcpu"]),
                Span(vcpu["state"], mark="strong" if vcpu["running"] else ""),
                "" if task is None else _task(number, task),
                _place(vcpu),
                vcpu["registers_from"] or "",
            )
        )
        if has_part:
            parts.append(_vcpu(number, what, vcpu))
    head = (what, "pCPU", "State", "Task", "At", "Registers from")
    table = Table(head, rows, numbers=(0, 1))
    return Section(f"d{number}-vcpus", f"{what}s", [table], parts)


def _place(vcpu: Vcpu) -> str:
    registers = vcpu["registers"]
    pc = registers.get("rip", registers.get("eip"))
    frame = vcpu["frames"][0] if vcpu["frames"] else None
    if frame is not None and frame["symbol"] is not None:
        return f"{frame['symbol']}+{frame['offset']:#x}"
    return pc or ""


def _vcpu(number: int, what: str, vcpu: Vcpu) -> Section:
    blocks: list[Block] = []
    if vcpu["task"] is not None:
        blocks.append(Facts([("Task", _task(number, vcpu["task"]))]))
    if vcpu["frames"]:
        lines = [frame_line(i, frame, number) for i, frame in enumerate(vcpu["frames"])]
        blocks.append(Lines(lines, caption="Stack"))
    if vcpu["why"]:
        blocks.append(Note(vcpu["why"], "missing"))
    if vcpu["registers"]:
        blocks.append(registers(vcpu["registers"]))
    name = f"{what} {vcpu['id']}"
    return Section(f"d{number}-v{vcpu['id']}", name, blocks, folded=True)


def _of_kernel(number: int, kernel: Kernel) -> Iterator[Section]:
    yield _waits(number, kernel)
    yield _stacks(number, kernel)
    yield _functions(number, kernel)
    yield _tasks(number, kernel)
    yield _modules(number, kernel)
    if kernel["log"] is not None:
        blocks = [log_lines(kernel["log"])]
        yield Section(f"d{number}-log", "Log of the kernel", blocks, folded=True)


def _waits(number: int, kernel: Kernel) -> Section:
    blocks: list[Block] = []
    for cycle in kernel["deadlocks"]:
        text = " → ".join(map(str, [*cycle, cycle[0]]))
        blocks.append(Note(f"Deadlock: {text}", "bad"))
    rows = [_wait(number, wait) for wait in kernel["waits"]]
    if rows:
        head = ("Task", "Waits for", "In", "Owner", "Chain")
        more = kernel["wait_count"] - len(rows)
        blocks.append(Table(head, rows, more=more))
    else:
        blocks.append(Note("No task is in D state."))
    return Section(f"d{number}-waits", "Tasks in D state", blocks)


def _wait(number: int, wait: Wait) -> tuple[Cell, ...]:
    owner: Cell = ""
    if wait["owner"] is not None:
        owner = [_task(number, wait["owner"])]
        if wait["doubt"]:
            owner.append(Span(f" ({wait['doubt']})", mark="doubt"))
    is_known = wait["kind"] is not None
    area = f" ({wait['area']})" if wait["area"] else ""
    return (
        _task(number, wait["task"]),
        Span(wait["what"], mark="" if is_known else "missing"),
        (wait["caller"] or "") + area,
        owner,
        " → ".join(map(str, wait["chain"])) if len(wait["chain"]) > 1 else "",
    )


def _stacks(number: int, kernel: Kernel) -> Section:
    parts = [_stack(number, i, stack) for i, stack in enumerate(kernel["stacks"])]
    tasks, stacks = kernel["task_count"], kernel["stack_count"]
    blocks: list[Block] = [Note(f"{tasks} tasks have {stacks} different stacks.")]
    if stacks > len(parts):
        blocks.append(Note(f"{stacks - len(parts)} more are left out.", "missing"))
    return Section(f"d{number}-stacks", "Stacks", blocks, parts)


def _stack(number: int, i: int, stack: Stack) -> Section:
    tasks: list[Span] = []
    for task in stack["tasks"]:
        tasks += [_task(number, task), Span(", ")]
    tasks.pop()
    if stack["count"] > len(stack["tasks"]):
        tasks.append(Span(f" and {stack['count'] - len(stack['tasks'])} more"))
    lines = [frame_line(n, frame, number) for n, frame in enumerate(stack["frames"])]
    blocks: list[Block] = [Facts([("Tasks", tasks)]), Lines(lines)]
    if stack["why"]:
        blocks.append(Note(stack["why"], "missing"))
    names = [f["symbol"] for f in stack["frames"] if f["symbol"] and not f["user"]]
    inner = next((name for name in names if not name.startswith(_SWITCH)), "no frames")
    first = stack["tasks"][0]["comm"]
    title = f"{stack['count']} × {inner}, as {first}"
    return Section(f"d{number}-s{i}", title, blocks, folded=True)


#: Functions in which every task is that does not run.
_SWITCH = ("__schedule", "schedule", "context_switch", "__switch_to", "io_schedule")


def _functions(number: int, kernel: Kernel) -> Section:
    """The functions on the stacks, with the tasks in them: frames link to it."""
    found: dict[str, tuple[str, list[int]]] = {}
    for i, stack in enumerate(kernel["stacks"]):
        for frame in stack["frames"]:
            name = frame["symbol"]
            if name is None or frame["user"]:
                continue
            _, stacks = found.setdefault(function_id(number, name), (name, []))
            if not stacks or stacks[-1] != i:
                stacks.append(i)
    rows: list[Sequence[Cell]] = []
    for name, stacks in list(found.values())[:_MAX_FUNCTIONS]:
        count = sum(kernel["stacks"][i]["count"] for i in stacks)
        tasks = [task for i in stacks for task in kernel["stacks"][i]["tasks"]]
        named: list[Span] = []
        for task in tasks[:MAX_REPORT_NAMED]:
            named += [_task(number, task), Span(", ")]
        named = named[:-1]
        if count > MAX_REPORT_NAMED:
            named.append(Span(f" and {count - len(tasks[:MAX_REPORT_NAMED])} more"))
        rows.append((name, str(count), named))
    table = Table(
        ("Function", "Tasks", "Which"),
        rows,
        ids=list(found)[:_MAX_FUNCTIONS],
        numbers=(1,),
        more=max(0, len(found) - _MAX_FUNCTIONS),
    )
    return Section(f"d{number}-functions", "Functions on stacks", [table], folded=True)


def _tasks(number: int, kernel: Kernel) -> Section:
    stack_of = {
        task["task"]: f"d{number}-s{i}"
        for i, stack in enumerate(kernel["stacks"])
        for task in stack["tasks"]
    }
    rows: list[Sequence[Cell]] = []
    ids = []
    for task in kernel["tasks"]:
        ids.append(f"d{number}-t{task['task']}")
        stack = stack_of.get(task["task"])
        rows.append(
            (
                str(task["pid"]),
                task["comm"],
                task["state"],
                str(task["cpu"]),
                Span("stack", to=stack) if stack else "",
            )
        )
    table = Table(
        ("PID", "Command", "State", "CPU", "Stack"),
        rows,
        ids=ids,
        numbers=(0, 3),
        more=kernel["task_count"] - len(rows),
    )
    return Section(f"d{number}-tasks", f"Tasks ({kernel['task_count']})", [table], folded=True)


def _modules(number: int, kernel: Kernel) -> Section:
    rows = [(one["name"], one["base"], str(one["size"])) for one in kernel["modules"]]
    if not rows:
        return Section(f"d{number}-modules", "Modules", [Note("No module is loaded.")])
    more = kernel["module_count"] - len(rows)
    table = Table(("Module", "Address", "Size"), rows, numbers=(1, 2), more=more)
    title = f"Modules ({kernel['module_count']})"
    return Section(f"d{number}-modules", title, [table], folded=True)


def _p2m(number: int, picture: P2mPicture) -> Section:
    rows = [
        (one["label"], str(one["extents"]), size(one["pages"] * 4096)) for one in picture["extents"]
    ]
    table = Table(
        ("Extents of", "Number", "Memory"), rows, numbers=(1, 2), caption="Sizes of extents"
    )
    text = (
        f"{picture['frames']} of {picture['pages']} pfns have frames, by {picture['source']}. "
        "An extent is contiguous both in pfns and in mfns."
    )
    if picture["read"] < picture["pages"]:
        text += f" {picture['read']} pfns were looked at: a sample, in which extents are cut."
    blocks: list[Block] = [Note(text), Picture(picture, f"P2M of domain {number}", table)]
    return Section(f"d{number}-p2m", "Fragmentation of the P2M", blocks)
