"""Types one by one, of real kernels: the same layouts as by paths."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from xenkdump_fast import AbsentError, Domain
from xenkdump_fast import _native as native
from xenkdump_fast.linux import modules

pytestmark = pytest.mark.real

Path = Callable[[str], str]

STRUCTS = ("task_struct", "mm_struct", "file", "module", "page", "inode", "sk_buff", "pci_dev")


def flat(
    struct: native.Type, base: int = 0, depth: int = 8
) -> Iterator[tuple[str, int, int | None]]:
    """Name, bit offset and width of each member, with those of anonymous members."""
    for member in struct.members:
        at = base + member.bit_offset
        if member.name:
            yield member.name, at, member.bit_size
        elif (inner := member.type.stripped()) is not None and depth:
            yield from flat(inner, at, depth - 1)


def agree(types: native.Types) -> int:
    """Compares all members of some structs with ``Types.members``; returns how many."""
    count = 0
    for name in STRUCTS:
        if name not in types:
            continue
        struct = types.graph.find(f"struct {name}")
        assert (struct.kind, struct.name, struct.size) == ("struct", name, types.sizeof(name))
        found = list(flat(struct))
        members = types.members(name)
        assert [member for member, _, _ in found] == list(members)
        for member, at, width in found:
            known = members[member]
            bits = 8 * known.offset + (known.bit_offset or 0)
            assert (at, width) == (bits, known.bit_size), f"{name}.{member}"
        for part in struct.members:
            if part.name:
                assert str(part.type) == members[part.name].type_name
                assert (part.type.sizeof() or 0) == members[part.name].size or part.bit_size
        count += len(found)
    return count


@pytest.mark.parametrize("image", ["6.1.0-56-amd64", "6.12.117", "7.3.4", "6.1.0-50-686-pae"])
def test_offsets_are_those_of_paths(dump_file: Path, image: str) -> None:
    assert agree(native.Image(dump_file(f"vmlinux-{image}")).types()) > 600


def test_types_of_xen_are_a_graph(dump_file: Path) -> None:
    types = native.Image(dump_file("xen-syms-4.20")).types()
    domain = types.graph.find("struct domain")
    offsets = {member.name: member.offset for member in domain.members}
    assert offsets["domain_id"] == types.offset("domain.domain_id")
    assert offsets["vcpu"] == types.offset("domain.vcpu")


def test_all_types_of_btf_are_described(dump_file: Path) -> None:
    graph = native.Image(dump_file("vmlinux-6.1.0-56-amd64")).types().graph
    kinds: Counter[str] = Counter(found.kind for found in graph)
    assert sum(kinds.values()) == len(graph) > 100_000
    assert kinds["unknown"] == kinds["void"] == 0
    for kind in ("int", "ptr", "array", "struct", "union", "enum", "fwd", "typedef", "volatile"):
        assert kinds[kind] > 10, kind
    for kind in ("const", "restrict", "func", "func_proto", "var", "datasec"):
        assert kinds[kind], kind
    assert graph[0].kind == "void"
    with pytest.raises(KeyError):
        graph[len(graph) + 1]
    every = {found.number for found in graph}
    assert {found.number for found in graph.reachable([graph.find("task_struct")])} <= every


def test_base_types_and_functions(dump_file: Path) -> None:
    graph = native.Image(dump_file("vmlinux-6.1.0-56-amd64")).types().graph
    found = graph.find("unsigned long")
    assert (found.kind, found.size, found.signed, found.encoding) == ("int", 8, False, "int")
    assert graph.find("_Bool").encoding == "bool"
    assert graph.find("int").signed
    assert graph.variable("runqueues") == graph.find("struct rq")
    u32 = graph.find("u32")
    assert u32.kind == "typedef"
    assert (str(u32), str(u32.stripped()), u32.sizeof(), u32.size) == (
        "u32",
        "unsigned int",
        4,
        None,
    )
    printk = next(item for item in graph if item.kind == "func" and item.name == "_printk")
    proto = printk.target
    assert proto is not None
    assert (proto.kind, str(proto.target), proto.variadic) == ("func_proto", "int", True)
    assert [(name, str(item)) for name, item in proto.parameters] == [("fmt", "const char *")]
    (percpu,) = (item for item in graph if item.kind == "datasec" and item.name == ".data..percpu")
    sections = {item.name: (offset, size) for item, offset, size in percpu.variables}
    assert sections["runqueues"][1] == graph.find("struct rq").size
    state = dict(graph.find("enum hrtimer_restart").enumerators)
    assert state == {"HRTIMER_NORESTART": 0, "HRTIMER_RESTART": 1}
    with pytest.raises(AbsentError, match="no type struct nothing"):
        graph.find("struct nothing")
    assert "nothing" not in graph
    assert hash(u32) == hash(graph.find("u32"))
    assert u32 in [graph.find("u32")]


def test_named_types_of_dwarf_are_listed(dump_file: Path) -> None:
    types = native.Image(dump_file("vmlinux-6.1.0-50-686-pae")).types()
    graph = types.graph
    named: Counter[tuple[str, str]] = Counter((found.kind, found.name) for found in graph)
    assert len(named) == len(graph) > 10_000
    for kind, name in [("struct", "task_struct"), ("union", "thread_union"), ("typedef", "u32")]:
        assert named[kind, name] == 1
    assert graph.find("long unsigned int").size == types.word == 4
    assert graph.find("_Bool").encoding == "bool"
    files = list(graph.reachable([graph.find("file_operations")]))
    prototypes = [found for found in files if found.kind == "func_proto"]
    assert any(len(found.parameters) > 3 for found in prototypes)


def test_types_of_a_module_continue_those_of_the_kernel(domain: Callable[[str], Domain]) -> None:
    kernel = domain("bare-x86_64").kernel
    graph = kernel.types.graph
    name = next(modules.modules(kernel)).name
    own = kernel.module_types(name).graph
    assert len(own) > len(graph)
    assert own.find("task_struct").number == graph.find("task_struct").number
    assert own[len(graph) + 1].number == len(graph) + 1


def test_symbols_are_columns(dump_file: Path) -> None:
    symbols = native.Image(dump_file("vmlinux-6.1.0-56-amd64")).symbols(0x1000000)
    table = symbols.table()
    assert len(table) == len(symbols) == len(table.names) > 100_000
    for row, symbol in zip(range(1000), symbols, strict=False):
        assert (table.names[row], table.addresses[row]) == (symbol.name, symbol.address)
        assert (table.sizes[row], table.kinds[row]) == (symbol.size, symbol.kind)
        assert (table.bindings[row], table.modules[row]) == (symbol.binding, None)
    kinds = dict(zip(table.names, table.kinds, strict=True))
    assert kinds["init_task"] == "object"
    assert kinds["schedule"] == "func"
    (schedule,) = symbols.all("schedule")
    assert (schedule.kind, schedule.binding) == ("func", "global")
