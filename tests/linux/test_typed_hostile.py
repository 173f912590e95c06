"""``p``, ``struct`` and ``whatis`` on types that no compiler writes."""

import json
import struct
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

import xenkdump_fast as xk
from xenkdump_fast.budget import BudgetExceededError
from xenkdump_fast.cli import main
from xenkdump_fast.limits import MAX_PRINTED_CHARACTERS, MAX_PRINTED_ELEMENTS
from xenkdump_fast.linux.typed import expression, printing, types
from xenkdump_fast.linux.typed.value import Value
from xenkdump_fast.session import Domain
from xenkdump_forge import write_dump
from xenkdump_forge.debuginfo import btf
from xenkdump_forge.debuginfo.cparse import Types
from xenkdump_forge.kernels import image

INT, PTR, ARRAY, STRUCT, TYPEDEF, PROTOTYPE = 1, 2, 3, 4, 8, 13
ENUM = 6


class Btf:
    """BTF to which types are added that ``debuginfo.btf`` cannot describe."""

    def __init__(self, data: bytes, count: int) -> None:
        header = struct.unpack_from("<HBBIIIII", data)
        types_size, strings = header[5], header[6]
        self._types = bytearray(data[24 : 24 + types_size])
        self._strings = bytearray(data[24 + strings :])
        self.last = count

    def _name(self, name: str) -> int:
        if not name:
            return 0
        self._strings += name.encode() + b"\0"
        return len(self._strings) - len(name) - 1

    def add(self, name: str, kind: int, size: int, more: bytes, count: int = 0) -> int:
        info = kind << 24 | (count & 0xFFFF) | (count >> 16 << 31)
        self._types += struct.pack("<III", self._name(name), info, size) + more
        self.last += 1
        return self.last

    def integer(self, name: str, size: int, bits: int) -> int:
        return self.add(name, INT, size, struct.pack("<I", 1 << 24 | bits))

    def array(self, element: int, count: int) -> int:
        return self.add("", ARRAY, 0, struct.pack("<III", element, 1, count))

    def struct(
        self, name: str, members: Sequence[tuple[str, int, int]], *, bit_fields: bool = False
    ) -> int:
        more = b"".join(struct.pack("<III", self._name(one), of, at) for one, of, at in members)
        return self.add(name, STRUCT, 16, more, len(members) | bit_fields << 16)

    def section(self) -> bytes:
        sizes = 24, 0, len(self._types), len(self._types), len(self._strings)
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, *sizes) + self._types + self._strings


def add_hostile(found: Btf) -> None:
    number = found.integer("hostile_int", 4, 32)
    empty = found.integer("hostile_empty", 0, 0)
    huge = found.integer("hostile_huge", 0xFFFF_FFF0, 255)
    fields = [("zero", number, 0), ("wide", number, 3 | 200 << 24), ("empty", empty, 3 | 7 << 24)]
    fields += [("huge", huge, 5 | 9 << 24), ("good", number, 4 | 8 << 24)]
    found.struct("hostile_bits", fields, bit_fields=True)
    found.struct("hostile_numbers", [("empty", empty, 0), ("huge", huge, 0), ("good", number, 0)])
    own = found.last + 1
    found.struct("hostile_self", [("a", own, 0), ("b", own, 64), ("", own, 0), ("", own, 0)])
    own = found.last + 1
    found.struct("", [("", own, 0), ("", own, 0), ("x", own, 0), ("y", own, 0)])
    found.struct("hostile_anonymous", [("", own, 0)])
    inner = found.struct("hostile_nothing", [])
    for depth in range(4):
        elements = found.array(inner, 0xFFFF_FFFF)
        inner = found.struct(f"hostile_elements{depth}", [("a", elements, 0), ("b", elements, 0)])
    # Arrays and structs in turn, deeper than Python's stack.
    inner = found.struct("", [("last", number, 0)])
    for depth in range(1000):
        dimension = inner
        for _ in range(8):
            dimension = found.array(dimension, 1)
        inner = found.struct("hostile_deep" if depth == 999 else "", [("a", dimension, 0)])
    char = found.integer("char", 1, 8)
    found.struct("hostile_text", [("text", found.array(char, 0xFFFF_FFFF), 0)])
    own = found.last + 1
    found.add("", PROTOTYPE, own, struct.pack("<II", 0, own) * 40, 40)
    found.struct("hostile_function", [("call", own, 0)])
    own = found.last + 1
    found.add("hostile_typedef", TYPEDEF, own, b"")
    loops, point = found.array(own, 2), found.add("", PTR, own, b"")
    fields = [("loop", own, 0), ("loops", loops, 0), ("point", point, 64), ("good", number, 0)]
    found.struct("hostile_damaged", fields)
    values = b"".join(struct.pack("<Ii", 0, value) for value in range(60_000))
    enum = found.add("hostile_enum", ENUM, 4, values, 60_000)
    many = found.array(enum, MAX_PRINTED_ELEMENTS)
    found.struct("hostile_enums", [("a", many, 0)])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A vmlinux with hostile types, and its dump."""

    def section(known: Types) -> bytes:
        writer = btf.section(known)
        found = Btf(writer, _count(writer))
        add_hostile(found)
        return found.section()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image, "btf", SimpleNamespace(section=section))
        made = write_dump(tmp_path_factory.mktemp("hostile") / "dump", like="modern")
    return str(made.vmlinux), str(made.vmcore)


def _count(data: bytes) -> int:
    """The number of types of the BTF that ``debuginfo.btf`` writes."""
    at, end, count = 24, 24 + struct.unpack_from("<I", data, 12)[0], 0
    each = {INT: (4, 0), ARRAY: (12, 0), STRUCT: (0, 12), 5: (0, 12), ENUM: (0, 8)}
    while at < end:
        info = struct.unpack_from("<I", data, at + 4)[0]
        fixed, part = each.get(info >> 24 & 31, (0, 0))
        at += 12 + fixed + part * (info & 0xFFFF)
        count += 1
    return count


@pytest.fixture(scope="module")
def domain(files: tuple[str, str]) -> Domain:
    return xk.open(files[1]).domain(0, files[0])


def value(domain: Domain, name: str) -> Value:
    return expression.evaluate(domain.kernel, f"*(struct hostile_{name} *)&init_task")


def test_numbers_of_impossible_widths(domain: Domain) -> None:
    # A width of 0 says that a member is no bit-field.
    for name, expected in (("bits", {"wide"}), ("numbers", {"empty", "huge"})):
        found = printing.plain(value(domain, name))
        assert isinstance(found, dict)
        assert {one for one, number in found.items() if number is None} == expected
        lines = printing.text(value(domain, name)).splitlines()[1:-1]
        bad = {line.split()[0] for line in lines if "<incomplete type>" in line}
        assert bad == expected


@pytest.mark.parametrize(
    "name", ["self", "anonymous", "elements3", "enums", "deep", "function", "text", "numbers"]
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_any_type_is_printed_or_refused(
    name: str,
    options: tuple[str, ...],
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(types, "MAX_PRINTED_PARTS", 1 << 12)
    for command in ("struct", "whatis"):
        assert main([command, *options, *files, f"hostile_{name}"]) in (0, 1)
    capsys.readouterr()
    lines: list[tuple[str, ...]] = [
        ("struct", f"hostile_{name}", "init_task", "5"),
        ("struct", f"hostile_{name}.missing"),
        ("p", f"*(struct hostile_{name} *)&init_task"),
    ]
    for words in lines:
        status = main([words[0], *options, *files, *words[1:]])
        out, error = capsys.readouterr()
        assert status in (0, 1), error
        assert "bug" not in error
        if options and status == 0:
            json.loads(out)


@pytest.mark.parametrize("name", ["self", "elements3", "enums"])
def test_parts_are_counted(name: str, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "MAX_PRINTED_PARTS", 1 << 12)
    for show in (printing.text, printing.plain):
        with pytest.raises(BudgetExceededError, match=r"more than (4096 members|64 within)"):
            show(value(domain, name))


def test_a_definition_is_limited(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "MAX_PRINTED_PARTS", 1 << 12)
    graph = domain.kernel.types.graph
    for name in ("anonymous", "function"):
        with pytest.raises(BudgetExceededError):
            list(printing.layout(graph.find(f"hostile_{name}"), 8))


def test_long_text_is_cut_with_dots(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PRINTED_CHARACTERS < 0xFFFF_FFFF
    monkeypatch.setattr(printing, "MAX_PRINTED_CHARACTERS", 1 << 8)
    assert printing.text(value(domain, "text")).splitlines()[1].endswith('"...')
    with pytest.raises(BudgetExceededError, match="too many characters"):
        printing.plain(value(domain, "text"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"sizeof(char [{'9' * 3000}])", "too many elements"),
        (f"(int [0x{'9' * 3000}])0", "too many elements"),
        (f"sizeof(char {'[4294967295]' * 3})", "larger than the address space"),
        ("(int [5])0", "no number can be cast"),
        ("(struct task_struct)0", "no number can be cast"),
        ("(void [5])&init_task", "no number can be cast"),
        ("(struct list_head [])init_task", "no number can be cast"),
    ],
)
def test_what_has_no_value(text: str, problem: str, domain: Domain) -> None:
    with pytest.raises(xk.AbsentError, match=problem):
        expression.evaluate(domain.kernel, text)


def test_leading_zeros_of_a_length_are_decimal(domain: Domain) -> None:
    assert expression.evaluate(domain.kernel, "sizeof(char [0123])").integer() == 123
