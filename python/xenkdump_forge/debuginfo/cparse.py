"""Parses the subset of C in which the kernels' structs and variables are declared."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .ctype import (
    VOID,
    Abi,
    Array,
    Enum,
    Function,
    Int,
    Member,
    Pointer,
    Struct,
    Type,
    Typedef,
    locate,
)

_TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|([A-Za-z_]\w*|0x[0-9a-fA-F]+|\d+|[{}()\[\];,:*=])", re.S)
_QUALIFIERS = {"const", "volatile", "static", "extern"}
_INT_WORDS = {"unsigned", "signed", "char", "short", "int", "long", "_Bool"}


@dataclass
class Variable:
    """A variable of the kernel; ``marks`` holds ``__percpu``, ``__aligned(4096)`` and the like."""

    name: str
    type: Type
    marks: dict[str, int] = field(default_factory=dict)


@dataclass
class Types:
    """Every type of one kernel, by name."""

    abi: Abi
    structs: dict[str, Struct] = field(default_factory=dict)
    enums: dict[str, Enum] = field(default_factory=dict)
    typedefs: dict[str, Typedef] = field(default_factory=dict)
    ints: dict[str, Int] = field(default_factory=dict)
    pointers: dict[int, Pointer] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)

    def struct(self, name: str) -> Struct:
        """The struct or union of that name."""
        return self.structs[name]

    def sizeof(self, name: str) -> int:
        """Size of a struct or typedef."""
        return (self.structs.get(name) or self.typedefs[name]).size

    def offset(self, path: str) -> int:
        """Offset of ``struct.member.member[3]``."""
        name, _, rest = path.partition(".")
        return locate(self.structs[name], rest)[0]

    def member(self, path: str) -> Member:
        """The member at the end of ``struct.member.member``."""
        name, _, rest = path.partition(".")
        member = locate(self.structs[name], rest)[2]
        assert member is not None
        return member

    def integer(self, words: list[str]) -> Int:
        """The integer type named by words such as ``unsigned long``."""
        signed = "unsigned" not in words
        if "_Bool" in words:
            name, size, signed, encoding = "_Bool", 1, False, "bool"
        elif "char" in words:
            name = "unsigned char" if not signed else "char"
            size, encoding = 1, "char"
        else:
            longs = words.count("long")
            if "short" in words:
                size, base = 2, "short int"
            elif longs == 2:
                size, base = 8, "long long int"
            elif longs == 1:
                size, base = self.abi.word, "long int"
            else:
                size, base = 4, "int"
            name = base if signed else base.replace("int", "unsigned int")
            encoding = "int"
        align = self.abi.align8 if size == 8 else size
        return self.ints.setdefault(name, Int(name, size, align, signed, encoding))

    def pointer(self, target: Type) -> Pointer:
        """The pointer type to ``target``, which exists once."""
        word = self.abi.word
        return self.pointers.setdefault(id(target), Pointer(target, word, word))


def parse(text: str, abi: Abi, constants: dict[str, int] | None = None) -> Types:
    """The types and variables that ``text`` declares, in order."""
    types = Types(abi)
    _Parser(text, types, constants or {}).run()
    return types


class _Parser:
    def __init__(self, text: str, types: Types, constants: dict[str, int]) -> None:
        self.tokens: list[str] = [t for t in _TOKEN.findall(text) if t]
        self.at = 0
        self.types = types
        self.constants = dict(constants)

    def run(self) -> None:
        while self.at < len(self.tokens):
            if self.accept("typedef"):
                for name, type_, _ in self.declarators(self.base()):
                    assert name is not None
                    self.types.typedefs[name] = Typedef(name, type_)
                self.marks()
                self.expect(";")
                continue
            marks = self.marks()
            base = self.base()
            if self.accept(";"):
                continue
            names = self.declarators(base)
            marks |= self.marks()
            self.expect(";")
            for name, type_, _ in names:
                assert name is not None
                self.types.variables.append(Variable(name, type_, marks))

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            near = " ".join(self.tokens[max(0, self.at - 8) : self.at + 3])
            raise ValueError(f"expected {token!r} near: {near}")

    def number(self) -> int:
        token = self.next()
        return self.constants[token] if token in self.constants else int(token, 0)

    def marks(self) -> dict[str, int]:
        """``__percpu``, ``__packed``, ``__aligned(64)`` and the like."""
        marks: dict[str, int] = {}
        while self.peek().startswith("__") and self.peek() not in self.types.typedefs:
            name = self.next()
            marks[name] = 1
            if self.accept("("):
                marks[name] = self.number()
                self.expect(")")
        return marks

    def base(self) -> Type:
        while self.peek() in _QUALIFIERS:
            self.next()
        token = self.next()
        if token in ("struct", "union"):
            return self.struct(token)
        if token == "enum":
            return self.enum()
        if token == "void":
            return VOID
        if token in _INT_WORDS:
            words = [token]
            while self.peek() in _INT_WORDS:
                words.append(self.next())
            return self.types.integer(words)
        if token not in self.types.typedefs:
            raise ValueError(f"unknown type {token!r}")
        return self.types.typedefs[token]

    def struct(self, kind: str) -> Struct:
        name = None if self.peek() == "{" else self.next()
        if name is None:
            struct = Struct(kind, None)
        else:
            struct = self.types.structs.setdefault(name, Struct(kind, name))
        if self.accept("{"):
            members: list[tuple[str | None, Type, int | None]] = []
            while not self.accept("}"):
                base = self.base()
                if self.accept(";"):
                    members.append((None, base, None))
                    continue
                members += self.declarators(base)
                self.expect(";")
            marks = self.marks()
            struct.lay_out(members, "__packed" in marks, marks.get("__aligned", 1))
        return struct

    def enum(self) -> Enum:
        name = None if self.peek() == "{" else self.next()
        if not self.accept("{"):
            assert name is not None
            return self.types.enums[name]
        values: dict[str, int] = {}
        value = 0
        while not self.accept("}"):
            key = self.next()
            if self.accept("="):
                value = self.number()
            values[key] = value
            self.constants[key] = value
            value += 1
            self.accept(",")
        enum = Enum(name, values)
        if name is not None:
            self.types.enums[name] = enum
        return enum

    def declarators(self, base: Type) -> list[tuple[str | None, Type, int | None]]:
        out: list[tuple[str | None, Type, int | None]] = []
        while True:
            out.append(self.declarator(base))
            if not self.accept(","):
                return out

    def declarator(self, type_: Type) -> tuple[str | None, Type, int | None]:
        while self.peek() in ("*", *_QUALIFIERS):
            if self.next() == "*":
                type_ = self.types.pointer(type_)
        if self.accept("("):  # a pointer to a function
            self.expect("*")
            name: str | None = self.next()
            self.expect(")")
            self.expect("(")
            while not self.accept(")"):
                self.next()
            return name, self.types.pointer(Function()), None
        name = None if self.peek() == ":" else self.next()
        counts: list[int] = []
        while self.accept("["):
            counts.append(0 if self.peek() == "]" else self.number())
            self.expect("]")
        for count in reversed(counts):
            type_ = Array(type_, count)
        return name, type_, self.number() if self.accept(":") else None
