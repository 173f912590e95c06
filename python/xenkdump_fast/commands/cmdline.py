"""``cmdline``: the kernel's command line."""

from collections.abc import Iterator
from typing import NamedTuple, TypedDict

from .._native import AbsentError
from ..linux.kernel import Kernel
from ..output.escape import visible
from ..output.json_types import Count
from ..session import Domain

#: Bytes of a command line: COMMAND_LINE_SIZE is 2048 on x86, and the boot configuration may add to
#: saved_command_line (5.6, 7495e0926fdf).
MAX_LENGTH = 1 << 16


class Options(NamedTuple):
    """``cmdline`` has no options."""


def run(target: Domain, options: Options = Options()) -> "CommandLine":
    """Reads the command line; AbsentError if the dump does not hold it."""
    kernel = target.kernel
    address = _address(kernel)
    if address == 0:
        raise AbsentError(f"{target.dump.path}: domain {target.id}: saved_command_line is NULL")
    return CommandLine(target.id, kernel.string(address, MAX_LENGTH))


def _address(kernel: Kernel) -> int:
    """saved_command_line has been a pointer since 2.6.21 (30d7e0d466b3); it was an array before."""
    at = kernel.symbol("saved_command_line")
    if kernel.image.symbol_source != "symtab":  # others do not have sizes of variables
        is_array = kernel.variable_type("saved_command_line").endswith("[]")
        return at if is_array else kernel.pointer(at)
    size = max(symbol.size for symbol in kernel.symbols.all("saved_command_line"))
    return at if size > kernel.word else kernel.pointer(at)


class JSON(TypedDict):
    """What ``cmdline --json`` prints."""

    domain: Count
    command_line: str


class CommandLine(NamedTuple):
    """The command line of a kernel, as in /proc/cmdline."""

    domain: int
    line: str

    def text(self) -> Iterator[str]:
        """The line."""
        yield visible(self.line)

    def json(self) -> JSON:
        """The domain and the line."""
        return {"domain": self.domain, "command_line": self.line}
