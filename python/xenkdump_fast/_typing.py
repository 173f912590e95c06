"""The names of ``typing`` that are needed at run time, without importing it.

That takes milliseconds, and so do its named tuples: a short command would spend a tenth of its time
on them. For the type checker these are the names of ``typing``; so they are, but for
``NamedTuple``, if another module has imported it already: libraries that evaluate annotations do.
"""

import sys
from types import GenericAlias

TYPE_CHECKING = False

# Since Python 3.14 a class body does not evaluate its annotations, from which members are made.
if TYPE_CHECKING or sys.version_info >= (3, 14):
    from typing import (
        Any,
        BinaryIO,
        Generic,
        Literal,
        NamedTuple,
        NoReturn,
        NotRequired,
        Protocol,
        Self,
        TypedDict,
        TypeGuard,
        TypeVar,
        cast,
        overload,
    )
else:
    from _collections import _tuplegetter as member  # as in collections.namedtuple

    class _Fields(type):
        """Makes the members of a named tuple from its annotations."""

        def __new__(mcs, name, bases, namespace):
            base = bases[0]
            if isinstance(base, _Fields) and not base._fields:
                fields = tuple(namespace.get("__annotations__", ()))
                defaults = {field: namespace[field] for field in fields if field in namespace}
                for number, field in enumerate(fields):
                    namespace[field] = member(number, None)
                namespace["__slots__"] = ()
                namespace["_fields"] = namespace["__match_args__"] = fields
                namespace["_field_defaults"] = defaults
            return type.__new__(mcs, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_Fields):
        """As ``typing.NamedTuple``, which generates and compiles a constructor for each class."""

        __slots__ = ()
        _fields = ()

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = cls._complete(values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _complete(cls, values, named):
            """All values, with those that are given by name and with defaults."""
            missing = cls._fields[len(values) :]
            absent = [name for name in missing if name not in named]
            unknown = [name for name in named if name not in missing]
            excess = len(values) > len(cls._fields)
            if excess or unknown or not cls._field_defaults.keys() >= set(absent):
                takes, given = ", ".join(cls._fields), (*map(repr, values), *named)
                raise TypeError(f"{cls.__name__}({takes}) cannot be made of {', '.join(given)}")
            return (*values, *map({**cls._field_defaults, **named}.__getitem__, missing))

        @classmethod
        def _make(cls, values):
            return cls(*values)

        def _replace(self, **changes):
            return self._make([changes.pop(name, value) for name, value in self._items(changes)])

        __replace__ = _replace  # copy.replace(), since Python 3.13

        def _items(self, changes):
            if not changes.keys() <= set(self._fields):
                raise ValueError(f"no such members: {', '.join(changes.keys() - self._fields)}")
            return zip(self._fields, self, strict=True)

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            members = (f"{name}={value!r}" for name, value in self._asdict().items())
            return f"{type(self).__name__}({', '.join(members)})"

    if "typing" in sys.modules:
        from typing import (
            Any,
            BinaryIO,
            Generic,
            Literal,
            NoReturn,
            NotRequired,
            Protocol,
            Self,
            TypedDict,
            TypeGuard,
            TypeVar,
            cast,
            overload,
        )
    else:
        Any = BinaryIO = NoReturn = Self = object

        class _Special:
            __class_getitem__ = classmethod(GenericAlias)

        class Literal(_Special):
            """Annotations only."""

        class NotRequired(_Special):
            """Annotations only."""

        class TypeGuard(_Special):
            """Annotations only."""

        class Protocol:
            """A base that can have parameters."""

            __slots__ = ()

            def __class_getitem__(cls, parameters):
                return cls

        class Generic(Protocol):
            """A base that can have parameters."""

            __slots__ = ()

        class _TypedDict(dict):
            """An ordinary dictionary."""

            def __init_subclass__(cls, *, total=True):
                pass

        def TypedDict(name, fields, *, total=True):  # noqa: N802 - as in typing
            """A class of dictionaries; also a base of such a class, as in typing."""
            return type(name, (_TypedDict,), {"__annotations__": fields}, total=total)

        TypedDict.__mro_entries__ = lambda bases: (_TypedDict,)

        def TypeVar(name, *constraints, bound=None):  # noqa: N802 - as in typing
            """Something that can be a part of annotations."""
            return object

        def cast(kind, value):
            """The value."""
            return value

        def overload(function):
            """The function, which the last of that name replaces."""
            return function


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "BinaryIO",
    "Generic",
    "Literal",
    "NamedTuple",
    "NoReturn",
    "NotRequired",
    "Protocol",
    "Self",
    "TypeGuard",
    "TypeVar",
    "TypedDict",
    "cast",
    "overload",
]
