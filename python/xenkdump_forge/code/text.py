"""The kernel's text: small functions that call each other at known addresses."""

from __future__ import annotations

import bisect
import random
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from .asm import Asm, Row

#: Fills the gaps between functions.
_PADDING = 0xCC

Handwritten = Callable[[Asm], None]


def names(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


@dataclass(frozen=True)
class Frame:
    """The frame that a function's prologue pushes: registers, then ``locals`` bytes.

    With ``pointer``, the first of the registers is set up as frame pointer.
    """

    pushes: tuple[str, ...] = ()
    locals: int = 0
    pointer: bool = False


@dataclass
class Function:
    """A function of the assembled text."""

    name: str
    address: int
    size: int
    frame: Frame | None
    sites: dict[str, int]
    rows: list[tuple[int, Row]]
    #: Whether it is compiled C, with unwind information.
    is_c: bool = True
    is_global: bool = True


@dataclass
class Calls:
    """The calls of a function, in order; through one indirect call if ``shared``."""

    targets: list[str] = field(default_factory=list)
    shared: str | None = None


@dataclass
class Recipe:
    """Everything that defines the text of a kernel."""

    word: int
    base: int
    #: Call chains as a backtrace prints them, innermost first.
    chains: Iterable[Sequence[str]]
    #: Frames of given functions; the others are random.
    frames: Mapping[str, Frame]
    #: Functions in assembly: entry code, the context switch. Those with a frame in ``frames``
    #: are treated as C and are in ``.debug_frame``.
    handwritten: Mapping[str, Handwritten]
    #: Callers with one indirect call for all callees, and the bytes of that call.
    indirect: Mapping[str, str]
    #: Names in the chains that are labels in handwritten functions.
    labels: Collection[str] = ()
    #: Fixed addresses of functions; the others are consecutive, starting at ``base``.
    addresses: Mapping[str, int] = field(default_factory=dict)
    #: Fixed return addresses: (caller, callee) -> address.
    returns: Mapping[tuple[str, str], int] = field(default_factory=dict)
    #: Addresses of functions in other images: a module's callers and callees in the kernel.
    outside: Mapping[str, int] = field(default_factory=dict)
    pushes: tuple[str, ...] = ("r15", "r14", "r13", "r12", "rbp", "rbx")
    frame_pointer: bool = False


@dataclass
class Text:
    """The assembled text."""

    base: int
    code: bytes
    functions: dict[str, Function]
    labels: dict[str, tuple[int, int]]

    def __post_init__(self) -> None:
        self._ordered = sorted(self.functions.values(), key=lambda f: f.address)
        self._starts = [f.address for f in self._ordered]

    def site(self, caller: str, callee: str) -> int:
        """The return address of ``callee`` in ``caller``."""
        sites = self.functions[caller].sites
        return sites[callee] if callee in sites else sites["*"]

    def find(self, pc: int) -> Function | None:
        """The function that covers ``pc``."""
        at = bisect.bisect_right(self._starts, pc) - 1
        if at < 0:
            return None
        function = self._ordered[at]
        return function if pc < function.address + function.size else None

    def name_at(self, pc: int) -> str | None:
        """The innermost sized symbol that covers ``pc``: a stub, else a function."""
        for name, (at, size) in self.labels.items():
            if at <= pc < at + size:
                return name
        function = self.find(pc)
        return None if function is None else function.name


def frame_of(recipe: Recipe, name: str) -> Frame:
    """The frame of a function: given, or derived from its name."""
    if name in recipe.frames:
        return recipe.frames[name]
    rng = random.Random(zlib.crc32(name.encode()))
    pushes = recipe.pushes[rng.randrange(len(recipe.pushes)) :]
    if recipe.frame_pointer:
        pointer = "rbp" if recipe.word == 8 else "ebp"
        pushes = (pointer, *(reg for reg in pushes if reg != pointer))
    return Frame(pushes, recipe.word * rng.randrange(0, 9), recipe.frame_pointer)


def call_graph(recipe: Recipe) -> dict[str, Calls]:
    """The calls of every function in the chains."""
    graph: dict[str, Calls] = {}
    for chain in recipe.chains:
        for callee, caller in pairwise(chain):
            calls = graph.setdefault(caller, Calls(shared=recipe.indirect.get(caller)))
            if callee not in calls.targets:
                calls.targets.append(callee)
            graph.setdefault(callee, Calls(shared=recipe.indirect.get(callee)))
    for name in recipe.handwritten:
        graph.setdefault(name, Calls())
    missing = {*recipe.labels, *recipe.outside}
    return {name: calls for name, calls in graph.items() if name not in missing}


def _compile(recipe: Recipe, name: str, calls: Calls, address: int) -> Asm:
    """Assembles a C function, from its prologue to its ``ret``."""
    rng = random.Random(zlib.crc32(name.encode()) ^ 0x5EED)
    frame = frame_of(recipe, name)
    asm = Asm(recipe.word, address)
    prologue(asm, frame)
    asm.body(rng, rng.randrange(2, 9))
    if calls.shared is not None:
        _reach(asm, recipe.returns.get((name, "*")), len(bytes.fromhex(calls.shared)))
        asm.call_indirect(calls.shared, "*")
        asm.body(rng, rng.randrange(1, 6))
    else:
        pinned = [(recipe.returns.get((name, t), 0), t) for t in calls.targets]
        for at, target in sorted(pinned, key=lambda p: p[0]):
            _reach(asm, at or None, 5)
            asm.call(target)
            asm.body(rng, rng.randrange(1, 6))
    epilogue(asm, frame)
    return asm


def prologue(asm: Asm, frame: Frame) -> None:
    """Emits the pushes and locals of a frame."""
    asm.state(Row(offset=asm.word))
    for i, reg in enumerate(frame.pushes):
        asm.push(reg)
        if frame.pointer and i == 0:
            asm.emit("4889e5" if asm.word == 8 else "89e5")
            asm.state(Row("bp", 2 * asm.word, "call", asm.row.saved))
    if frame.locals:
        asm.grow(frame.locals)


def epilogue(asm: Asm, frame: Frame) -> None:
    """Emits the reverse of the prologue, and ``ret``."""
    if frame.locals:
        asm.grow(-frame.locals)
    for i, reg in enumerate(reversed(frame.pushes)):
        if frame.pointer and i == len(frame.pushes) - 1:
            asm.state(Row("sp", 2 * asm.word, "call", asm.row.saved))
        asm.pop(reg)
    asm.ret()


def _reach(asm: Asm, site: int | None, size: int) -> None:
    """Pads the code so that a call instruction of ``size`` bytes returns to ``site``."""
    if site is not None:
        gap = site - size - asm.here
        if gap < 0:
            raise ValueError(f"{asm.address:#x}: the code before {site:#x} is too long")
        asm.nops(gap)


def _wanted_address(recipe: Recipe, name: str, calls: Calls) -> int | None:
    """The fixed address of a function, or one that its fixed return addresses need."""
    if name in recipe.addresses:
        return recipe.addresses[name]
    pins = [at for (caller, _), at in recipe.returns.items() if caller == name]
    if not pins:
        return None
    loose = replace(recipe, returns={})
    size = len(_compile(loose, name, calls, 0).code)
    return (min(pins) - size) & ~0xF


def assemble(recipe: Recipe) -> Text:
    """Assembles all functions and resolves their calls."""
    graph = call_graph(recipe)
    wanted = {name: _wanted_address(recipe, name, calls) for name, calls in graph.items()}
    pieces: dict[str, Asm] = {}

    def make(name: str, address: int) -> Asm:
        if name in recipe.handwritten:
            asm = Asm(recipe.word, address)
            recipe.handwritten[name](asm)
        else:
            asm = _compile(recipe, name, graph[name], address)
        pieces[name] = asm
        return asm

    fixed = sorted((at, name) for name, at in wanted.items() if at is not None)
    taken = []
    for at, name in fixed:
        taken.append((at, make(name, at).here))
    here = recipe.base
    for name in graph:
        if wanted[name] is not None:
            continue
        size = len(make(name, here).code)
        for start, end in taken:
            if here < end and here + size + 32 > start:
                here = -(-end // 16) * 16
                size = len(make(name, here).code)
        here = -(-(here + size) // 16) * 16
    return _link(recipe, pieces)


def _link(recipe: Recipe, pieces: dict[str, Asm]) -> Text:
    end = max(asm.here for asm in pieces.values())
    code = bytearray([_PADDING]) * (-(-(end - recipe.base) // 4096) * 4096)
    labels: dict[str, tuple[int, int]] = {}
    functions: dict[str, Function] = {}
    known = {**recipe.outside, **{name: asm.address for name, asm in pieces.items()}}
    for asm in pieces.values():
        labels.update(asm.labels)
    for name, asm in sorted(pieces.items(), key=lambda p: p[1].address):
        for offset, next_address, target in asm.fixups:
            to = known[target] if target in known else labels[target][0]
            rel = (to - next_address) & 0xFFFFFFFF
            asm.code[offset : offset + 4] = rel.to_bytes(4, "little")
        at = asm.address - recipe.base
        code[at : at + len(asm.code)] = asm.code
        is_c = name not in recipe.handwritten or name in recipe.frames
        functions[name] = Function(
            name,
            asm.address,
            len(asm.code),
            frame_of(recipe, name) if is_c else None,
            dict(asm.sites),
            list(asm.rows),
            is_c,
        )
    return Text(recipe.base, bytes(code), functions, labels)
