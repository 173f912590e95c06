"""``kmem``: memory usage; by drgn what else crash's ``kmem`` shows."""

import argparse
import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout

from .._typing import NamedTuple, NotRequired, TypedDict
from ..linux.memory_use import MemoryUse, memory_use
from ..output.json_types import Count
from ..session import Domain
from .contract import Operands, UsageError

OPERANDS = Operands("ARGUMENT", "arguments of drgn's kmem; options after --", "...")

_PAGE_KIB = 4


class Options(NamedTuple):
    """What to show."""

    #: Arguments for drgn's command.
    operands: Sequence[str] = ()
    #: The usage of memory.
    info: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``kmem``."""
    parser.add_argument("-i", "--info", action="store_true", help="the usage of memory")


def run(target: Domain, options: Options = Options()) -> "Usage | Printed":
    """Counts pages by their use; other arguments are those of drgn's command.

    AbsentError if nothing can be counted, or if the dump, or drgn's types, lack what drgn needs;
    MissingPackageError if it is not installed; UsageError for wrong arguments.
    """
    if options.info or list(options.operands) == ["-i"]:
        if options.info and options.operands:
            raise UsageError("argument -i/--info: not allowed with arguments for drgn's command")
        return Usage(target.id, memory_use(target.kernel))
    if not options.operands:
        raise UsageError("-i for the usage of memory, or -- and arguments of drgn's kmem")
    return _by_drgn(target, options.operands)


def _by_drgn(target: Domain, arguments: Sequence[str]) -> "Printed":
    from ..bridges.drgn import crash, program_of

    program = program_of(target)
    out = io.StringIO()
    try:
        with redirect_stdout(out):
            crash.run(program, ["kmem", *arguments])
    except crash.CommandUsageError as error:
        raise UsageError(str(error)) from None
    return Printed(
        target.id, out.getvalue().splitlines(), ["kmem: printed by drgn's command of this name"]
    )


class UsageJson(TypedDict):
    """Numbers of pages; null if not known."""

    total: Count | None
    free: Count | None
    buffers: Count | None
    cached: Count | None
    slab: Count | None
    huge_total: Count | None
    huge_free: Count | None
    swap_total: Count | None
    swap_free: Count | None
    commit_limit: Count | None
    committed: Count | None


class JSON(TypedDict):
    """What ``kmem --json`` prints: ``usage`` with ``-i``, else the ``lines`` of drgn's command."""

    domain: Count
    usage: NotRequired[UsageJson]
    lines: NotRequired[list[str]]


class Usage(NamedTuple):
    """The usage of memory."""

    domain: int
    use: MemoryUse

    def text(self) -> Iterator[str]:
        """As crash prints it."""
        use = self.use
        yield f"{'':13}  {'PAGES':>7}  {'TOTAL':>11}      PERCENTAGE"
        yield _row("TOTAL MEM", use.total)
        for name, pages in (
            ("FREE", use.free),
            ("USED", _difference(use.total, use.free)),
            ("BUFFERS", use.buffers),
            ("CACHED", use.cached),
            ("SLAB", use.slab),
        ):
            yield _row(name, pages, use.total, "TOTAL MEM")
        yield ""
        yield _row("TOTAL HUGE", use.huge_total)
        yield _row("HUGE FREE", use.huge_free, use.huge_total, "TOTAL HUGE")
        yield ""
        yield _row("TOTAL SWAP", use.swap_total)
        used = _difference(use.swap_total, use.swap_free)
        yield _row("SWAP USED", used, use.swap_total, "TOTAL SWAP")
        yield _row("SWAP FREE", use.swap_free, use.swap_total, "TOTAL SWAP")
        yield ""
        yield _row("COMMIT LIMIT", use.commit_limit)
        yield _row("COMMITTED", use.committed, use.commit_limit, "TOTAL LIMIT")

    def json(self) -> JSON:
        """Numbers of pages."""
        use = self.use
        return {
            "domain": self.domain,
            "usage": {
                "total": use.total,
                "free": use.free,
                "buffers": use.buffers,
                "cached": use.cached,
                "slab": use.slab,
                "huge_total": use.huge_total,
                "huge_free": use.huge_free,
                "swap_total": use.swap_total,
                "swap_free": use.swap_free,
                "commit_limit": use.commit_limit,
                "committed": use.committed,
            },
        }


class Printed(NamedTuple):
    """What drgn printed."""

    domain: int
    lines: Sequence[str]
    warnings: Sequence[str]

    def text(self) -> Iterator[str]:
        """The lines."""
        yield from self.lines

    def json(self) -> JSON:
        """The lines."""
        return {"domain": self.domain, "lines": list(self.lines)}


def _difference(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else max(whole - part, 0)


def _row(name: str, pages: int | None, whole: int | None = None, of: str | None = None) -> str:
    """A row; its percentage refers to ``whole``, which ``of`` names."""
    count = "?" if pages is None else str(pages)
    share = "       ----"
    if of is not None:
        part = "?"
        if pages is not None and whole is not None:
            part = str(pages * 100 // whole) if whole else "0"
        share = f"{part:>3}% of {of}"
    return f"{name:>13}  {count:>7}  {_size(pages):>11}  {share}"


def _size(pages: int | None) -> str:
    """In the unit that crash takes, without a fraction that is 0."""
    if pages is None:
        return "?"
    kib = pages * _PAGE_KIB
    if kib >= 1 << 20:
        return f"{kib / (1 << 20):.1f}".removesuffix(".0") + " GB"
    if kib >= 1 << 10:
        return f"{kib / (1 << 10):.1f}".removesuffix(".0") + " MB"
    return f"{kib} KB" if kib else "0"
