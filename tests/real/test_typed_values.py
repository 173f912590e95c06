"""Layouts and values of types from BTF, against drgn with the DWARF of the same kernel.

The DWARF is found in ``XKDUMP_DEBUG_PATH``.
"""

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

import xenkdump_fast as xk
from tests.real.conftest import X86_64
from tests.real.test_export import with_dwarf
from xenkdump_fast import Domain
from xenkdump_fast.commands import p, struct, whatis
from xenkdump_fast.linux import percpu

if TYPE_CHECKING:
    from drgn import Object, Program, Type

pytest.importorskip("drgn")
pytestmark = pytest.mark.real

CASES = [("bare-x86_64", 0), ("xen417-dom0", 0), ("xen417-three-domains", 1)]
LAYOUTS = 400
#: Instances of each struct, and how many structs at least.
INSTANCES = 3
STRUCTS = 60


class Opened:
    """A domain, and drgn's program of it."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.program: Program = xk.drgn_program(domain)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def opened(request: Any, dump_file: Callable[[str], str]) -> Opened:
    name, number = request.param
    vmlinux = dump_file(X86_64)
    with_dwarf(vmlinux)
    return Opened(xk.open(dump_file(f"{name}/vmcore")).domain(number, vmlinux))


def stripped(of: "Type") -> "Type":
    from drgn import TypeKind

    while of.kind == TypeKind.TYPEDEF:
        of = of.type
    return of


def flat(of: "Type", base: int = 0) -> Iterator[tuple[str, int, int | None]]:
    """Name, bit offset and width of each member, with those of anonymous members."""
    for member in of.members:
        if member.name:
            yield member.name, base + member.bit_offset, member.bit_field_size
        else:
            yield from flat(stripped(member.type), base + member.bit_offset)


def plain(of: "Object") -> Any:
    """A value as ``struct --json`` shows it; None for what cannot be read."""
    from drgn import FaultError, Object, TypeKind

    found = stripped(of.type_)
    try:
        if found.kind in (TypeKind.STRUCT, TypeKind.UNION):
            members: dict[str, Any] = {}
            for member in found.members if found.is_complete() else ():
                if member.name:
                    members[member.name] = plain(of.member_(member.name))
                else:
                    at = of.address_ + member.bit_offset // 8
                    members.update(plain(Object(of.prog_, member.type, address=at)))
            return members if found.is_complete() else None
        if found.kind == TypeKind.ARRAY:
            element, length = stripped(found.type), found.length or 0
            if element.kind == TypeKind.INT and element.size == 1 and "char" in element.name:
                data = of.prog_.read(of.address_, length) if length else b""
                return data.rstrip(b"\0").decode("utf-8", "backslashreplace")
            # BTF has arrays of arrays as one.
            is_flat = element.kind == TypeKind.ARRAY
            return [plain(of[i]) for i in range(min(length, 200))] if not is_flat else ...
        value = of.value_()
    except FaultError:
        return None
    if found.kind == TypeKind.POINTER:
        return hex(value)
    if found.kind == TypeKind.ENUM:
        return next((e.name for e in found.enumerators or () if e.value == value), ...)
    if found.kind == TypeKind.BOOL:
        # Any byte but 0 is true to drgn; ours shows what it is.
        return value or ...
    return value


def differences(own: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if other is ...:
        return []
    if isinstance(own, dict) and isinstance(other, dict) and own.keys() == other.keys():
        pairs = [(f"{path}.{name}", own[name], other[name]) for name in own]
    elif isinstance(own, list) and isinstance(other, list) and len(own) == len(other):
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(own, other, strict=True))]
    elif isinstance(own, bool) or isinstance(other, bool):
        return [] if bool(own) == bool(other) else [(path, own, other)]
    else:
        return [] if own == other else [(path, own, other)]
    return [found for name, a, b in pairs for found in differences(a, b, name)]


def test_layouts(opened: Opened) -> None:
    graph = opened.domain.kernel.types.graph
    every = {f"{t.kind} {t.name}" for t in graph if t.kind in ("struct", "union") and t.name}
    chosen = sorted(every)
    random.Random(2).shuffle(chosen)
    compared, different = 0, []
    for name in chosen:
        if compared == LAYOUTS:
            break
        try:
            expected = opened.program.type(name)
        except LookupError:
            continue
        if not expected.is_complete() or graph.find(name).kind == "fwd":
            continue
        own: Any = struct.run(opened.domain, struct.Options([name])).json()
        found = [
            (one["name"], 8 * one["offset"] + one.get("bit_offset", 0), one.get("bit_size"))
            for one in own["members"]
        ]
        compared += 1
        if (own["size"], found) != (expected.size, list(flat(expected))):
            different.append(name)
    assert compared == LAYOUTS
    # Two source files may define structs of one name.
    assert len(different) <= 2, different


def reached(opened: Opened) -> "Iterator[Object]":
    """Structs that pointers lead to from tasks, a few of each."""
    from drgn import FaultError, Object, TypeKind

    program = opened.program
    tasks = opened.domain.kernel.tasks()
    queue = [Object(program, "struct task_struct", address=t.address) for t in tasks]
    counts: dict[str, int] = {}
    while queue:
        of = queue.pop(0)
        tag = stripped(of.type_).tag
        counts[tag] = counts.get(tag, 0) + 1
        if counts[tag] > INSTANCES:
            continue
        yield of
        for member in stripped(of.type_).members:
            target = stripped(member.type)
            if not member.name or target.kind != TypeKind.POINTER:
                continue
            below = stripped(target.type)
            if below.kind != TypeKind.STRUCT or not below.is_complete() or not below.tag:
                continue
            try:
                address = of.member_(member.name).value_()
                program.read(address, below.size)
            except (FaultError, OverflowError):
                continue
            # A pointer of union may be to something else, whose bytes mean nothing as this type.
            if address % 8 == 0 and below.tag != "module":
                queue.append(Object(program, below, address=address))


def test_instances(opened: Opened) -> None:
    seen = set()
    for of in islice(reached(opened), 400):
        tag = stripped(of.type_).tag
        if opened.domain.kernel.types.graph.find(f"struct {tag}").size != of.type_.size:
            continue  # another struct of this name
        options = struct.Options([f"struct {tag}", f"{of.address_:x}"])
        own: Any = struct.run(opened.domain, options).json()
        assert differences(own["instances"][0]["value"], plain(of)) == [], (tag, of.address_)
        seen.add(tag)
    assert len(seen) > STRUCTS
    assert {"task_struct", "mm_struct", "signal_struct", "cred", "files_struct"} <= seen


def test_per_cpu_variables(opened: Opened) -> None:
    from drgn.helpers.linux.percpu import per_cpu

    kernel = opened.domain.kernel
    compared = 0
    for symbol in kernel.symbols:
        if symbol.kind != "object" or not percpu.is_variable(kernel, symbol.address):
            continue
        if len(kernel.symbols.all(symbol.name)) > 1 or symbol.name == "fixed_percpu_data":
            continue
        try:
            other = per_cpu(opened.program[symbol.name], 0)
        except (KeyError, LookupError):
            continue
        own: Any = p.run(opened.domain, p.Options([f"{symbol.name}:0"])).json()
        assert differences(own["values"][0]["value"], plain(other)) == [], symbol.name
        compared += 1
    assert compared > 300


def test_definitions_are_those_of_crash(domain: Callable[[str], Domain]) -> None:
    def definition(name: str) -> list[str]:
        found = whatis.run(domain("bare-x86_64"), whatis.Options([name])).text()
        return list(found)

    assert definition("refcount_t") == [
        "typedef struct refcount_struct {",
        "    atomic_t refs;",
        "} refcount_t;",
        "SIZE: 4",
    ]
    assert definition("acpi_osd_handler") == [
        "typedef u32 (*)(void *) acpi_osd_handler;",
        "SIZE: 8",
    ]
    assert definition("pid_t") == ["typedef int pid_t;", "SIZE: 4"]
    assert definition("ZSTD_dParameter")[::6] == ["typedef enum {", "} ZSTD_dParameter;"]
    empty = definition("trace_event_data_offsets_ma_write")
    assert empty[1:] == ["    <no data fields>", "}", "SIZE: 0"]
    assert definition("avenrun") == ["unsigned long avenrun[3];"]


@pytest.mark.parametrize("name", ["bare-x86_64", "linux73-bare"])
def test_a_per_cpu_variable_has_no_value_without_a_cpu(
    name: str, domain: Callable[[str], Domain]
) -> None:
    """Since Linux 6.15 the section of the image has kernel addresses, and can be read."""
    opened = domain(name)
    for text in ("runqueues.nr_running", "cpu_number", "*&runqueues", "&runqueues.curr->pid"):
        with pytest.raises(xk.AbsentError, match="is a per-CPU variable"):
            p.run(opened, p.Options([text]))
    for text in ("jiffies:0", "init_task:a.pid"):
        with pytest.raises(xk.AbsentError, match="is not a per-CPU variable"):
            p.run(opened, p.Options([text]))
    p.run(opened, p.Options(["&runqueues.curr"]))
