"""``swap``: swap devices and files."""

from collections.abc import Iterator, Sequence

from .._typing import NamedTuple, TypedDict
from ..limits import MAX_DEVICES_READ
from ..linux import swap
from ..linux.swap import Swap
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..output.table import columns
from ..session import Domain


class Options(NamedTuple):
    """There are none."""


def run(target: Domain, options: Options = Options()) -> "Swaps":
    """Reads the swap devices. AbsentError if the kernel's types are not known."""
    kernel = target.kernel
    with kernel.budget("structs of swap devices", MAX_DEVICES_READ):
        return Swaps(target.id, kernel.word, swap.swaps(kernel))


class SwapJson(TypedDict):
    """A swap device; ``size`` and ``used`` in bytes."""

    swap_info_struct: Hex
    type: str
    size: Count
    used: Count
    priority: int
    path: str


class JSON(TypedDict):
    """What ``swap --json`` prints."""

    domain: Count
    swaps: list[SwapJson]


class Swaps(NamedTuple):
    """The swap devices in use."""

    domain: int
    word: int
    swaps: Sequence[Swap]

    def text(self) -> Iterator[str]:
        """A line per device, as crash prints it."""
        rows = [("SWAP_INFO_STRUCT", "TYPE", "SIZE", "USED", "PCT", "PRI", "FILENAME")]
        rows += [
            (
                f"{one.address:x}",
                _type(one),
                f"{one.size // 1024}k",
                f"{one.used // 1024}k",
                f"{one.percent}%",
                str(one.priority),
                visible(one.path),
            )
            for one in self.swaps
        ]
        yield from columns(rows, "<<>>>><", "  ")

    def json(self) -> JSON:
        """The same."""
        return {"domain": self.domain, "swaps": [_json(one) for one in self.swaps]}


def _type(one: Swap) -> str:
    return "FILE" if one.is_file else "PARTITION"


def _json(one: Swap) -> SwapJson:
    return {
        "swap_info_struct": hex(one.address),
        "type": _type(one),
        "size": one.size,
        "used": one.used,
        "priority": one.priority,
        "path": one.path,
    }
