"""Layouts inferred from memory, compared with the kernels' type information."""

from collections.abc import Callable

import pytest

from tests import rendering
from xenkdump_fast import AbsentError, Domain
from xenkdump_fast.commands import mod, ps
from xenkdump_fast.linux import clock
from xenkdump_fast.linux.infer import INFERRERS, Inference

pytestmark = pytest.mark.real

Open = Callable[[str], Domain]
#: The members that must be inferred on each dump.
EXPECTED = {
    "task_struct": "__state active_mm comm exit_state flags group_leader mm parent pid real_parent "
    "rss_stat.count signal stack tasks tgid thread.sp thread_node",
    "signal_struct": "thread_head",
    "inactive_task_frame": "ret_addr bp bx",
    "rq": "curr idle",
    "mm_struct": "total_vm rss_stat.count",
    "pglist_data": "node_present_pages",
    "uts_namespace": "name",
    "module": "list name core_layout.base core_layout.size kallsyms",
    "mod_kallsyms": "symtab num_symtab strtab",
}


@pytest.mark.parametrize("struct", EXPECTED)
@pytest.mark.parametrize("name", ["xen417-dom0", "bare-x86_64", "bare-i386-pae"])
def test_inferred_layouts_match_the_types(name: str, struct: str, domain: Open) -> None:
    kernel = domain(name).kernel
    native = kernel.types.native
    assert native is not None
    inference = Inference(kernel, "types are ignored")
    found = INFERRERS[struct](kernel, inference)
    assert set(EXPECTED[struct].split()) <= found.keys()
    for path, member in found.items():
        if path == "":
            assert member.size == native.sizeof(struct) or struct == "rq"
        elif f"{struct}.{path}" != "task_struct.cpu":
            assert member.offset == native.offset(f"{struct}.{path}")
    if struct == "task_struct":
        assert found["cpu"].offset == native.offset("task_struct.thread_info.cpu")


@pytest.mark.parametrize(
    ("struct", "paths"),
    [
        ("module", "list name mem kallsyms"),
        ("module_memory", "base size"),
        ("task_struct", "__state comm pid stack tasks tgid thread.sp thread_info.flags"),
    ],
)
def test_inferred_layouts_match_the_types_on_7_3(struct: str, paths: str, domain: Open) -> None:
    """mem[] since 6.4; a kworker/1:0H that is still on CPU 0."""
    kernel = domain("linux73-bare").kernel
    native = kernel.types.native
    assert native is not None
    found = INFERRERS[struct](kernel, Inference(kernel, "types are ignored"))
    assert set(paths.split()) <= found.keys()
    for path in paths.split():
        assert found[path].offset == native.offset(f"{struct}.{path}")
    if struct == "task_struct":
        assert found["cpu"].offset == native.offset("task_struct.thread_info.cpu")
    if struct == "module_memory":
        assert found[""].size == native.sizeof(struct)


def test_the_time_is_inferred_on_linux_7_3(domain: Open) -> None:
    """Without tick_nsec. The timekeeper is in an array; its offset in the array is inferred."""
    kernel = domain("linux73-bare").kernel
    found = INFERRERS["timekeeper"](kernel, Inference(kernel, ""))
    start = kernel.symbol("timekeeper")
    seconds = kernel.virtual.u64(start + found["xtime_sec"].offset)
    assert seconds == clock.date(kernel)
    offset = kernel.virtual.u64(start + found["wall_to_monotonic.tv_sec"].offset) - (1 << 64)
    # The last line of its log is of second 53.
    assert seconds + offset == clock.uptime(kernel) == 52


def test_the_time_is_inferred(domain: Open) -> None:
    """The inferred offset is relative to the symbol, not to the struct."""
    kernel = domain("bare-x86_64").kernel
    found = INFERRERS["timekeeper"](kernel, Inference(kernel, ""))["xtime_sec"]
    seconds = kernel.virtual.u64(kernel.symbol("tk_core") + found.offset)
    assert seconds == clock.date(kernel)


def test_ps_of_a_kernel_with_symbols_alone(domain: Open, crash: Callable[[str], str]) -> None:
    """crash omits CPU 1's task: panic() stopped that CPU, but it was online."""
    found = rendering.text(ps.run(domain("bare-i386"))).splitlines()
    lost = [line for line in found if "[swapper/1]" in line]
    found.remove(lost[0])
    found = [line.replace(">", " ", 1) if "t-busyloop" in line else line for line in found]
    assert found == crash("bare-i386/crash/ps.txt").splitlines()


def test_mod_of_a_kernel_with_symbols_alone(domain: Open, crash: Callable[[str], str]) -> None:
    assert rendering.text(mod.run(domain("bare-i386"))) == crash("bare-i386/crash/mod.txt")


def test_inference_is_reported_once(domain: Open) -> None:
    opened = domain("bare-i386")
    # Layouts are inferred when they are used: twice here.
    for _ in range(2):
        assert rendering.text(ps.run(opened))
    inferred = [line for line in opened.warnings if "inferred" in line]
    assert len(inferred) == 1


def test_what_cannot_be_inferred(domain: Open) -> None:
    with pytest.raises(AbsentError, match="no_such_member"):
        domain("bare-i386").kernel.member("task_struct.no_such_member")
