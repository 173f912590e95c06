"""timekeeper and uts_namespace."""

from ..._native import AbsentError
from ...limits import MAX_TIMEKEEPER
from .. import clock
from ..kernel import Kernel
from .inferred import Inferences, Inferred, Struct
from .task_sample import Block

#: Seconds since 1970: from 2004 on.
_EARLIEST = 1_072_915_200
_LATEST = 1 << 33
#: The size of the timekeeper if its symbol has none.
_DEFAULT_SIZE = 0x200


def timekeeper(kernel: Kernel, inference: Inferences) -> Struct:
    """xtime_sec: its sum with wall_to_monotonic, which follows, is the seconds since boot.

    The struct is assumed to fill the symbol: then its offset in tk_core does not matter.
    """
    size = min(clock.timekeeper_size(kernel) or _DEFAULT_SIZE, MAX_TIMEKEEPER)
    start = kernel.symbol("timekeeper")
    block = Block(start, kernel.data(start, size), 4)
    uptimes = clock.possible_uptimes(kernel)
    for at in range(0, size - 8, 4):
        seconds = block.word(at) | block.word(at + 4) << 32
        if not _EARLIEST < seconds < _LATEST:
            continue
        for back in range(at + 8, min(at + 32, size - 8), 4):
            offset = block.word(back) | block.word(back + 4) << 32
            since_boot = (seconds + offset) & 0xFFFF_FFFF_FFFF_FFFF
            if clock.uptime_error(since_boot, uptimes) is not None:
                return {
                    "": Inferred(0, size),
                    "xtime_sec": Inferred(at, 8),
                    "wall_to_monotonic.tv_sec": Inferred(back, 8, signed=True),
                }
    raise AbsentError("no member of timekeeper is the time")


def uts_namespace(kernel: Kernel, inference: Inferences) -> Struct:
    """name: new_utsname starts with the name of the system."""
    found = kernel.data(kernel.symbol("init_uts_ns"), 64).find(b"Linux\0")
    if found < 0:
        raise AbsentError("init_uts_ns does not contain the name Linux")
    return {"name": Inferred(found, 6 * 65)}
