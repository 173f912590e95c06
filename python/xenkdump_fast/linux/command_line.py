"""The command line of a kernel."""

from .kernel import Kernel

#: Bytes of a command line: COMMAND_LINE_SIZE is 2048 on x86, and the boot configuration may add to
#: saved_command_line (5.6, 7495e0926fdf).
MAX_LENGTH = 1 << 16


def address(kernel: Kernel) -> int:
    """The address of the text; 0 if there is none.

    saved_command_line has been a pointer since 2.6.21 (30d7e0d466b3); it was an array before.
    """
    at = kernel.symbol("saved_command_line")
    if kernel.image.symbol_source != "symtab":  # others do not have sizes of variables
        is_array = kernel.variable_type("saved_command_line").endswith("[]")
        return at if is_array else kernel.pointer(at)
    size = max(symbol.size for symbol in kernel.symbols.all("saved_command_line"))
    return at if size > kernel.word else kernel.pointer(at)


def read(kernel: Kernel) -> str | None:
    """The command line as in /proc/cmdline; None if there is none."""
    at = address(kernel)
    return kernel.string(at, MAX_LENGTH) if at else None
