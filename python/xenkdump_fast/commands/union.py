"""``union``: the layout of a union, and instances of it in memory; ``struct`` for unions only."""

from .._native import AbsentError, Type
from ..linux.typed import types
from ..session import Domain
from . import struct
from .contract import Operands
from .struct import JSON, Instances, Layout, Options, add_options

__all__ = ["JSON", "OPERANDS", "Options", "add_options", "run"]

OPERANDS = Operands(
    "STRUCT[.MEMBER,...] [ADDRESS|SYMBOL[+OFFSET] [COUNT]]",
    "a union, or a typedef of one, with members to select; then where it is in memory, and how "
    "many there are one after another",
    "+",
)


def run(target: Domain, options: Options = Options()) -> Layout | Instances:
    """As ``struct``; AbsentError if the type is not a union."""
    name = options.operands[0].partition(".")[0]
    found = types.stripped(struct.named(target, name, options.module))
    if not isinstance(found, Type) or found.kind != "union":
        raise AbsentError(f"{target.kernel.image.path}: {name} is not a union")
    return struct.run(target, options)
