"""Expressions of C over a kernel's variables: ``&init_task.tasks``, ``(*modules.next).prev``.

Names are variables, numbers decimal or hex with ``0x``. There are members, elements, ``*``, ``&``,
casts, ``sizeof``, ``+`` and ``-``; ``NAME:CPU`` is the instance of a per-CPU variable.
"""

import re
from typing import NoReturn

from ... import parsing
from ..._native import AbsentError
from ...limits import MAX_EXPRESSION, MAX_EXPRESSION_DEPTH
from ...suggestions import UnknownNameError
from .. import percpu
from ..kernel import Kernel
from . import types
from .types import Derived
from .value import Value

_TOKEN = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+|[A-Za-z_]\w*|->|[()\[\].*&+:-])", re.ASCII)

#: What only a type starts with.
_TYPE_WORDS = ("struct", "union", "enum", "unsigned", "signed", "void")


def evaluate(kernel: Kernel, text: str) -> Value:
    """The value of an expression. Raises AbsentError, with the place, if it has none."""
    if len(text) > MAX_EXPRESSION:
        raise AbsentError(f"an expression of {len(text)} characters is too long")
    parser = _Parser(kernel, text)
    value = parser.sum()
    if parser.token is not None:
        parser.fail(f"{parser.token!r} is not expected")
    return parser.readable(value)


def variable(kernel: Kernel, name: str, cpu: int | None = None) -> Value:
    """A global variable, or a CPU's instance of a per-CPU variable. Raises AbsentError."""
    address = kernel.symbols.get(name)
    if address is None:
        address = kernel.code.get(name)
    if address is None:
        text = f"{kernel.image.path}: no variable {name}"
        raise UnknownNameError(text, name, lambda: kernel.code.table().names)
    if cpu is not None:
        address = percpu.instance(kernel, name, address, cpu)
    of = types.parse(kernel, kernel.variable_type(name))
    if isinstance(of, Derived) and of.length == 0:
        # The table of variables leaves out how many elements an array has.
        (size, *_) = (symbol.size for symbol in kernel.symbols.all(name))
        of = of._replace(length=size // max(types.sizeof(of.target, kernel.word), 1))
    return Value(kernel, of, address)


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, kernel: Kernel, text: str) -> None:
        self._kernel = kernel
        self._text = text
        self._at = 0
        self._start = 0
        self._depth = 0
        #: The last per-CPU variable without a CPU.
        self._per_cpu: str | None = None
        self.token: str | None = None
        self._next()

    def fail(self, why: str) -> NoReturn:
        """Raises AbsentError."""
        raise AbsentError(f"{self._text!r}, character {self._start + 1}: {why}")

    def readable(self, value: Value) -> Value:
        """The value, which is to be read. AbsentError if no CPU has it."""
        if self._per_cpu is not None and value.address is not None:
            percpu.reject_per_cpu(self._kernel, self._per_cpu, value.address)
        return value

    def _next(self) -> None:
        self._start = self._at
        if not self._text[self._at :].strip():
            self.token = None
            return
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            self.fail("this is not part of an expression")
        self._start, self._at = match.start(1), match.end()
        self.token = match[1]

    def _take(self, token: str) -> None:
        if self.token != token:
            self.fail(f"{token!r} is expected")
        self._next()

    def sum(self) -> Value:
        """A sum; of a pointer and a number it counts elements."""
        value = self._unary()
        while self.token in ("+", "-"):
            sign = 1 if self.token == "+" else -1
            self._next()
            value = self._add(value, sign * self.readable(self._unary()).integer())
        return value

    def _add(self, value: Value, number: int) -> Value:
        if value.kind == "array":
            value = value.element(0).reference()
        self.readable(value)
        step = 1
        if value.kind == "ptr" and types.target(value.type) is not None:
            step = types.sizeof(types.target(value.type), self._kernel.word)
        total = value.integer() + number * step
        return Value(self._kernel, value.type, None, total & self._kernel.last)

    def _unary(self) -> Value:
        self._depth += 1
        if self._depth > MAX_EXPRESSION_DEPTH:
            self.fail("too many operators and parentheses within each other")
        try:
            return self._prefixed()
        finally:
            self._depth -= 1

    def _prefixed(self) -> Value:
        if self.token == "*":
            self._next()
            value = self._unary()
            return (value if value.kind == "array" else self.readable(value)).dereferenced()
        if self.token == "&":
            self._next()
            return self._unary().reference()
        if self.token == "-":
            self._next()
            number = self.readable(self._unary())
            return number._replace(address=None, immediate=-number.integer())
        if self.token == "sizeof":
            self._next()
            self._take("(")
            text = self._type()
            size = types.sizeof(types.parse(self._kernel, text), self._kernel.word)
            return self._number(size)
        if self.token == "(" and self._is_cast():
            self._next()
            to = types.parse(self._kernel, self._type())
            value = self._unary()
            return (value if value.kind == "array" else self.readable(value)).cast(to)
        return self._postfix()

    def _is_cast(self) -> bool:
        """Whether a parenthesis is followed by a type: a keyword, or a name that is no variable."""
        rest = self._text[self._at :].lstrip()
        name = re.match(r"[A-Za-z_]\w*", rest, re.ASCII)
        if name is None:
            return False
        if name[0] in _TYPE_WORDS:
            return True
        if name[0] in self._kernel.symbols:
            return False
        return name[0] in self._kernel.types.graph

    def _type(self) -> str:
        """The text of a type up to the closing parenthesis."""
        end = self._text.find(")", self._start)
        if end < 0:
            self.fail("')' is missing")
        text = self._text[self._start : end]
        self._at = end + 1
        self._next()
        return text

    def _postfix(self) -> Value:
        value = self._primary()
        while True:
            if self.token in (".", "->"):
                if self.token == "." and value.kind == "ptr":
                    self.fail("a pointer: '->' is expected")
                self._next()
                if self.token is None:
                    self.fail("a member is expected")
                name = self.token
                self._next()
                value = (self.readable(value) if value.kind == "ptr" else value).member(name)
            elif self.token == "[":
                self._next()
                index = self.readable(self.sum()).integer()
                self._take("]")
                value = (self.readable(value) if value.kind == "ptr" else value).element(index)
            else:
                return value

    def _primary(self) -> Value:
        token = self.token
        if token is None:
            self.fail("a variable or a number is expected")
        if token == "(":
            self._next()
            value = self.sum()
            self._take(")")
            return value
        number = parsing.number(token, 0)
        if number is not None:
            self._next()
            return self._number(number)
        if not re.fullmatch(r"[A-Za-z_]\w*", token, re.ASCII):
            self.fail(f"{token!r} is not expected")
        self._next()
        cpu = None
        if self.token == ":":
            self._next()
            cpu = parsing.number(self.token or "")
            if cpu is None:
                self.fail(f"{self.token!r} is not a CPU")
            self._next()
        found = variable(self._kernel, token, cpu)
        address = found.address
        if cpu is None and address is not None and percpu.is_variable(self._kernel, address):
            self._per_cpu = token
        return found

    def _number(self, number: int) -> Value:
        if number > self._kernel.last:
            self.fail(f"{number} is larger than the kernel's words")
        name = "long" if number < 1 << 8 * self._kernel.word - 1 else "unsigned long"
        graph = self._kernel.types.graph
        for spelling in (name, name.replace("long", "long int"), "unsigned int"):
            if spelling in graph:
                return Value(self._kernel, graph.find(spelling), None, number)
        return Value(self._kernel, Derived(None), None, number)
