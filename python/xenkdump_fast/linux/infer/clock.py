"""The wall clock, and the names of the machine."""

from ..._native import AbsentError
from .. import clock
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct
from .sample import Block

#: Seconds since 1970: from 2004 on.
_EARLIEST = 1_072_915_200
_LATEST = 1 << 33
#: How far the parts of the clock may disagree, in seconds.
_SLACK = 3
#: Where the symbol has no size; and more than it has in any version.
DEFAULT_SIZE, MAX_SIZE = 0x200, 0x1000


def timekeeper(kernel: Kernel, inference: Inferences) -> Struct:
    """xtime_sec: with wall_to_monotonic, soon behind it, it gives the seconds since boot.

    The struct is taken to fill the symbol, since where it starts in tk_core does not matter then.
    """
    name = "tk_core" if "tk_core" in kernel.symbols else "timekeeper"
    size = max([symbol.size for symbol in kernel.symbols.all(name)], default=0) or DEFAULT_SIZE
    size = min(size, MAX_SIZE)
    data = kernel.data(kernel.symbol(name), size)
    block = Block(kernel.symbol(name), data, 4)
    uptime = clock.uptime(kernel)
    for at in range(0, size - 8, 4):
        seconds = block.word(at) | block.word(at + 4) << 32
        if not _EARLIEST < seconds < _LATEST:
            continue
        for back in range(at + 8, min(at + 32, size - 8), 4):
            offset = block.word(back) | block.word(back + 4) << 32
            since_boot = (seconds + offset) & 0xFFFF_FFFF_FFFF_FFFF
            if abs(since_boot - uptime) <= _SLACK:
                return {"": Inferred(0, size), "xtime_sec": Inferred(at, 8)}
    raise AbsentError("nothing in the timekeeper is like the time")


def uts_namespace(kernel: Kernel, inference: Inferences) -> Struct:
    """name: new_utsname starts with the system's name."""
    found = kernel.data(kernel.symbol("init_uts_ns"), 64).find(b"Linux\0")
    if found < 0:
        raise AbsentError("init_uts_ns does not name Linux")
    return {"name": Inferred(found, 6 * 65)}
