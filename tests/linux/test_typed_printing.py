"""Values as text and as JSON: with memory read at once, and types asked about once."""

from collections.abc import Callable

import pytest

import xenkdump_fast as xk
from xenkdump_fast.linux.typed import printing, shapes, types, value
from xenkdump_fast.linux.typed.value import Value
from xenkdump_fast.session import Domain
from xenkdump_forge import write_dump

from .test_typed_hostile import files  # noqa: F401  its types


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    made = write_dump(tmp_path_factory.mktemp("printing") / "dump", like="modern")
    return xk.open(made.vmcore).domain(0, made.vmlinux)


def task(domain: Domain) -> Value:
    kernel = domain.kernel
    return Value(kernel, kernel.types.graph.find("struct task_struct"), kernel.symbol("init_task"))


SHOWN: list[Callable[[Value], object]] = [
    printing.text,
    lambda value: printing.text(value, printing.Style(16)),
    lambda value: printing.plain(value.read_ahead()),
]


@pytest.mark.parametrize("shown", SHOWN)
def test_reading_ahead_changes_nothing(
    shown: Callable[[Value], object], domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = domain.kernel
    structs = [one for one in kernel.types.graph if one.kind in ("struct", "union", "array")]
    values = [Value(kernel, one, kernel.symbol("init_task") + 8) for one in structs]
    found = [shown(one) for one in values]
    monkeypatch.setattr(value, "MAX_READ_AHEAD", 0)
    assert found == [shown(one) for one in values]


@pytest.mark.parametrize("shown", SHOWN)
def test_types_are_asked_about_once(
    shown: Callable[[Value], object], domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal asked
            asked += 1
            return function(*arguments)

        return call

    for name in ("members", "stripped", "kind", "target", "sizeof", "length"):
        monkeypatch.setattr(types, name, counted(getattr(types, name)))
    shapes.of.cache_clear()
    first = shown(task(domain))
    assert asked > 100
    asked = 0
    assert shown(task(domain)) == first
    # The struct as a whole: its kind and its size.
    assert asked < 10


def test_a_damaged_type_is_that_of_one_member(files: tuple[str, str]) -> None:  # noqa: F811
    kernel = xk.open(files[1]).domain(0, files[0]).kernel
    of = kernel.types.graph.find("struct hostile_damaged")
    found = Value(kernel, of, kernel.symbol("init_task"))
    lines = printing.text(found).splitlines()[1:-1]
    assert [line.split(" = ")[0].strip() for line in lines] == ["loop", "loops", "point", "good"]
    assert ["<incomplete type>" in line for line in lines] == [True, True, True, False]
    json = printing.plain(found)
    assert isinstance(json, dict)
    assert (json["loop"], json["loops"]) == (None, None)
    assert isinstance(json["good"], int)
