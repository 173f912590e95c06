"""Named tuples of short commands do what those of typing do; the rest is for annotations."""

import copy
import pickle
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_fast import _typing
from xenkdump_fast.commands import COMMANDS


class Point(_typing.NamedTuple):
    """A named tuple of this package."""

    x: int
    #: Given by name or not.
    y: int = 2
    z: str = "z"

    @property
    def sum(self) -> int:
        """A method."""
        return self.x + self.y


class TypingPoint(typing.NamedTuple):
    """The same as typing makes it."""

    x: int
    y: int = 2
    z: str = "z"


MAKE: list[Callable[[Any], Any]] = [
    lambda kind: kind(1),
    lambda kind: kind(1, 3),
    lambda kind: kind(1, 3, "b"),
    lambda kind: kind(1, z="b"),
    lambda kind: kind(z="b", x=4),
    lambda kind: kind(x=1, y=2, z="c"),
    lambda kind: kind._make([1, 2, 3]),
    lambda kind: kind(1)._replace(y=5, z="d"),
    # copy.replace() of Python 3.13; typing has it only there.
    lambda kind: getattr(kind(1), "__replace__", kind(1)._replace)(y=5),
]
FAIL: list[Callable[[Any], Any]] = [
    lambda kind: kind(),
    lambda kind: kind(y=1),
    lambda kind: kind(1, 2, "3", 4),
    lambda kind: kind(1, x=2),
    lambda kind: kind(1, nonsense=2),
    lambda kind: kind._make([]),
]


@pytest.mark.parametrize("make", MAKE)
def test_members(make: Callable[[Any], Any]) -> None:
    own, wanted = make(Point), make(TypingPoint)
    assert own == wanted
    assert hash(own) == hash(wanted)
    assert repr(own) == repr(wanted).removeprefix("Typing")
    assert own._asdict() == wanted._asdict()
    assert (own.x, own.y, own.z) == (wanted.x, wanted.y, wanted.z)
    for same in (copy.copy(own), copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert same == own
        assert type(same) is Point


@pytest.mark.parametrize("make", FAIL)
def test_what_cannot_be_made(make: Callable[[Any], Any]) -> None:
    for kind in (Point, TypingPoint):
        with pytest.raises(TypeError):
            make(kind)


def test_the_class() -> None:
    assert Point._fields == TypingPoint._fields
    assert Point._field_defaults == TypingPoint._field_defaults
    assert Point(1).sum == 3
    assert not hasattr(Point(1), "__dict__")
    with pytest.raises(AttributeError):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises(ValueError, match="nonsense"):
        Point(1)._replace(nonsense=1)  # type: ignore[call-arg]
    match Point(1):
        case Point(x, y):  # __match_args__
            assert (x, y) == (1, 2)


#: The classes that are used if ``typing`` is not imported.
WITHOUT = """
import sys
from xenkdump_fast._typing import *

T = TypeVar("T")

class Shape(Protocol):
    def area(self) -> int: ...

class Box(Generic[T]):
    def get(self, at: "Literal['first'] | None") -> T | None: ...

class Json(TypedDict, total=False):
    name: NotRequired[str]
    kind: Literal["a", "b"] | None

class IntBox(Box[int]): ...

Keyword = TypedDict("Keyword", {"class": int})
Partial = TypedDict("Partial", {"from": int}, total=False)

class Both(Json, Keyword): ...

def guard(value: Any) -> TypeGuard[str]: ...

@overload
def one(x: int) -> Self: ...
def one(x: Any) -> NoReturn: return cast("int", x)

assert Json(name="a") == {"name": "a"}
assert Keyword({"class": 1}) == {"class": 1}
assert Partial.__name__ == "Partial"
assert Both({"name": "a", "class": 1}) == {"name": "a", "class": 1}
assert one(3) == 3
assert isinstance(IntBox(), Box)
assert "typing" not in sys.modules
"""


def test_annotations_need_no_typing() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


#: A short command as it starts: its module is imported before any that needs ``typing``.
COMMAND_MODULE = """
import sys
from xenkdump_fast import arguments
from xenkdump_fast.commands import COMMANDS

arguments.command_module(COMMANDS[sys.argv[1]])
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_starts_without_typing(name: str) -> None:
    subprocess.run([sys.executable, "-c", COMMAND_MODULE, name], check=True)


def test_they_are_those_of_typing_where_it_is_imported() -> None:
    for name in set(_typing.__all__) - {"NamedTuple", "TYPE_CHECKING"}:
        assert getattr(_typing, name) is getattr(typing, name)
