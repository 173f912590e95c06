"""Synthetic dumps, in addition to ``tests/test_plans.py``: pid hashes; the message of 2006."""

from dataclasses import replace
from pathlib import Path

import pytest

import xenkdump_fast as xk
from tests import rendering
from xenkdump_fast.commands import bt
from xenkdump_fast.linux import pids, tasklist
from xenkdump_forge import SyntheticDump, write_dump
from xenkdump_forge.hosts import i386_2006


def opened(kind: str, folder: Path) -> xk.Domain:
    synthetic = write_dump(folder / "dump", like=kind)
    return xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))


@pytest.mark.parametrize("kind", ["2006", "2006-pae", "xen3"])
def test_the_table_of_pids(kind: str, tmp_path: Path) -> None:
    kernel = opened(kind, tmp_path).kernel
    listed = set(tasklist.addresses(kernel)) - {kernel.symbol("init_task")}
    assert set(pids.tasks(kernel)) == listed


@pytest.fixture(params=["xen3", "2006-pae"])
def with_frame_pointers(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SyntheticDump:
    """A kernel with CONFIG_FRAME_POINTER; 2.6.16 saves only ebp when it switches, 2.6.18 eflags."""
    monkeypatch.setattr(i386_2006, "LAYOUT", replace(i386_2006.LAYOUT, frame_pointer=True))
    return write_dump(tmp_path, like=request.param)


@pytest.mark.parametrize("unwind", [["fp"], ["scan"], None])
def test_frame_pointers(with_frame_pointers: SyntheticDump, unwind: list[str] | None) -> None:
    files = with_frame_pointers
    domain = xk.open(str(files.vmcore)).domain(0, str(files.vmlinux), unwind=unwind)
    planned = {int(task["task"], 16): task for task in files.plan["domains"][0]["tasks"]}
    for trace in bt.run(domain, bt.Options(all=True)).traces:
        expected = [
            (int(frame["pc"], 16), int(frame["sp"], 16))
            for frame in planned[trace.task.address]["frames"]
        ]
        assert [(frame.pc, frame.sp) for frame in trace.frames] == expected, trace.task.comm
        assert trace.stopped is None


def test_the_message_of_2006(tmp_path: Path) -> None:
    """https://lists.xenproject.org, 16 June 2006: crash's first look at a Xen kdump."""
    result = bt.run(opened("2006", tmp_path), bt.Options(active=True))
    assert rendering.text(result) == (
        'PID: 0        TASK: c02ce460  CPU: 0    COMMAND: "swapper"\n'
        " #0 [c030ff34] schedule at c028e648\n"
        " #1 [c030ffb0] cpu_idle at c0103e9f\n"
        "\n"
        'PID: 3949     TASK: f3e64030  CPU: 1    COMMAND: "do_kdump"\n'
        " #0 [f3dbbed8] crash_kexec at c0140c45\n"
        " #1 [f3dbbf28] __handle_sysrq at c01f54e4\n"
        " #2 [f3dbbf54] write_sysrq_trigger at c019cbff\n"
        " #3 [f3dbbf6c] vfs_write at c0168dbf\n"
        " #4 [f3dbbf90] sys_write at c0169736\n"
        " #5 [f3dbbfb8] system_call at c0105542\n"
        "    EAX: 00000004  EBX: 00000001  ECX: 080f8408  EDX: 00000002 \n"
        "    DS:  007b      ESI: 00000002  ES:  007b      EDI: b7f007c0\n"
        "    SS:  007b      ESP: bfb5ffc8  EBP: bfb5ffe4\n"
        "    CS:  0073      EIP: b7e93028  ERR: 00000004  EFLAGS: 00000246 \n"
    )


@pytest.mark.parametrize(("kind", "source"), [("modern", "BTF"), ("xen3", "DWARF")])
def test_types_are_a_graph(kind: str, source: str, tmp_path: Path) -> None:
    types = opened(kind, tmp_path).kernel.types
    assert types.native is not None
    assert types.native.source == source
    task = types.graph.find("struct task_struct")
    assert task.size == types.sizeof("task_struct")
    for member in task.members:
        assert not member.name or member.offset == types.offset(f"task_struct.{member.name}")
    named = {(found.keyword, found.name) for found in types.graph}
    assert ("struct", "task_struct") in named
    reached = list(types.graph.reachable([task]))
    assert reached[0] == task
    assert len(reached) == len(set(reached)) > 20


def test_a_kernel_without_types_has_no_graph(tmp_path: Path) -> None:
    made = write_dump(tmp_path, like="2006")
    kernel = xk.open(str(made.vmcore)).domain(0).kernel
    with pytest.raises(xk.AbsentError, match="neither BTF nor DWARF: give a vmlinux with debug"):
        _ = kernel.types.graph
    with pytest.raises(xk.AbsentError, match=r"no type information for a\.b: give a vmlinux"):
        kernel.member("a.b")
    with pytest.raises(xk.AbsentError, match="size of dentry cannot be inferred: give a vmlinux"):
        kernel.types.sizeof("dentry")


def test_symbols_are_columns(tmp_path: Path) -> None:
    symbols = opened("modern", tmp_path).kernel.code
    table = symbols.table()
    rows = zip(table.names, table.addresses, table.sizes, table.kinds, table.modules, strict=True)
    assert [
        (symbol.name, symbol.address, symbol.size, symbol.kind, symbol.module) for symbol in symbols
    ] == list(rows)
    assert len(table) == len(symbols)
