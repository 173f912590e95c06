"""Types of drgn from a graph of types: what BTF can express."""

from types import SimpleNamespace
from typing import Any

import pytest
from drgn import Architecture, Platform, Program, Qualifiers, TypeKind

from xenkdump_fast._native import AbsentError
from xenkdump_fast.bridges.drgn.objects import parsed
from xenkdump_fast.bridges.drgn.types import Types


class Graph:
    """Types by number."""

    def __init__(self) -> None:
        self.all: dict[int, Any] = {}
        self.names: dict[str, Any] = {}

    def add(self, kind: str, name: str = "", target: Any = None, **more: Any) -> Any:
        number = len(self.all) + 1
        known = {"size": None, "signed": False, "encoding": None, "count": None, "keyword": None}
        parts: dict[str, Any] = {
            "variadic": False,
            "members": [],
            "enumerators": [],
            "parameters": [],
        }
        own = SimpleNamespace(
            number=number,
            kind=kind,
            name=name,
            target=target,
            **{**known, **parts, **more},
        )
        self.all[number] = own
        keyword = f"{kind.removesuffix('64')} " if kind in ("struct", "union", "enum") else ""
        self.names[keyword + name] = own
        return own

    def __getitem__(self, number: int) -> Any:
        return self.all[number]

    def find(self, name: str) -> Any:
        if name not in self.names:
            raise AbsentError(f"no type {name}")
        return self.names[name]


def member(name: str, own: Any, bit_offset: int, bit_size: int | None = None) -> Any:
    return SimpleNamespace(
        name=name, type_number=own.number, bit_offset=bit_offset, bit_size=bit_size
    )


@pytest.fixture
def program() -> Program:
    return Program(Platform(Architecture.X86_64))


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def types(program: Program, graph: Graph) -> Types:
    made = Types(program, graph)  # type: ignore[arg-type]
    program.register_type_finder("test", made.find, enable_index=0)
    return made


def test_a_struct_that_contains_itself(program: Program, graph: Graph, types: Types) -> None:
    node = graph.add("struct", "node", size=24)
    pointer = graph.add("ptr", "", node)
    number = graph.add("int", "unsigned int", size=4, encoding="int")
    anonymous = graph.add("union", "", size=8, members=[member("a", number, 0)])
    node.members = [
        member("next", pointer, 0),
        member("", anonymous, 64),
        member("low", number, 128, 3),
        member("high", number, 131, 29),
    ]
    found = program.type("struct node")
    assert found.member("next").type.type.member("high").bit_offset == 131
    assert found.member("a").bit_offset == 64
    assert (found.member("high").bit_offset, found.member("high").bit_field_size) == (131, 29)
    assert found.members[1].name is None
    assert types.type(node) is types.type(node)


def test_numbers(program: Program, graph: Graph, types: Types) -> None:
    for own, kind, size, signed in (
        (graph.add("int", "_Bool", size=1, encoding="bool"), TypeKind.BOOL, 1, None),
        (graph.add("int", "char", size=1, signed=True, encoding="char"), TypeKind.INT, 1, True),
        (graph.add("int", "__int128", size=16, signed=True), TypeKind.INT, 16, True),
        (graph.add("float", "double", size=8, encoding="float"), TypeKind.FLOAT, 8, None),
    ):
        found = types.type(own)
        assert (found.kind, found.size) == (kind, size)
        if signed is not None:
            assert found.is_signed == signed
    assert program.type("_Bool").size == 1


def test_enums(program: Program, graph: Graph, types: Types) -> None:
    graph.add("enum", "small", size=4, enumerators=[("A", 0), ("B", 0xFFFFFFFF)])
    graph.add("enum", "negative", size=1, signed=True, enumerators=[("C", -1)])
    large = graph.add("enum64", "large", size=8, enumerators=[("D", 1 << 63)])
    graph.names["enum large"] = large
    assert [tuple(one) for one in program.type("enum small").enumerators] == [
        ("A", 0),
        ("B", 0xFFFFFFFF),
    ]
    assert program.type("enum negative").type.type_name() == "signed char"
    assert program.type("enum large").enumerators[0].value == 1 << 63
    odd = graph.add("enum", "odd", size=3, enumerators=[("E", 0)])
    with pytest.raises(AbsentError, match="3 bytes"):
        types.type(odd)
    with pytest.raises(LookupError):
        program.type("enum odd")


def test_qualifiers_arrays_and_functions(graph: Graph, types: Types) -> None:
    char = graph.add("int", "char", size=1, signed=True, encoding="char")
    constant = graph.add("const", "", graph.add("volatile", "", char))
    found = types.type(constant)
    assert found.qualifiers == Qualifiers.CONST | Qualifiers.VOLATILE
    flexible = types.type(graph.add("array", "", char, count=0))
    assert flexible.length is None
    assert types.type(graph.add("array", "", char, count=7)).length == 7
    text = graph.add("ptr", "", graph.add("type_tag", "user", constant))
    function = graph.add("func_proto", "", None, parameters=[("format", text)], variadic=True)
    made = types.type(graph.add("func", "printk", function))
    assert made.type_name() == "void (const volatile char *format, ...)"
    assert [parameter.name for parameter in made.parameters] == ["format"]


def test_what_is_only_declared(graph: Graph, types: Types) -> None:
    for keyword in ("struct", "union"):
        own = graph.add("fwd", f"hidden_{keyword}", keyword=keyword)
        found = types.type(graph.add("ptr", "", own)).type
        assert not found.is_complete()
        assert found.type_name() == f"{keyword} hidden_{keyword}"


def test_types_that_cannot_be(graph: Graph, types: Types) -> None:
    loop = graph.add("typedef", "loop")
    loop.target = loop
    with pytest.raises(AbsentError, match="refers to itself"):
        types.type(loop)
    with pytest.raises(AbsentError, match="datasec"):
        types.type(graph.add("datasec", ".data..percpu"))


def test_a_declared_struct_without_a_name(program: Program, graph: Graph, types: Types) -> None:
    number = graph.add("int", "unsigned int", size=4, encoding="int")
    large = graph.add("int", "unsigned long", size=8, encoding="int")
    graph.add("struct", "clock", size=16, members=[member("base", large, 0)])
    graph.add("typedef", "seq_t", number)
    found = parsed(program, "struct { seq_t seq; struct clock clock; }")
    assert found.size == 24
    assert found.member("clock").bit_offset == 64
    assert types.find(program, None, "clock", "clock.c") is None
