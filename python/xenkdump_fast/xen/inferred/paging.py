"""The place of ``domain.arch.paging.mode`` by the values that it must have in every domain."""

from collections.abc import Sequence

from ..._native import AbsentError
from ...limits import MAX_SAMPLED_DOMAINS
from ..memory import XenMemory

#: PG_refcounts, PG_translate and PG_external, which a translated guest always has.
_TRANSLATED = 1 << 11 | 1 << 13 | 1 << 14
#: PG_SH_enable or PG_HAP_enable, one of which it has.
_KINDS = (1 << 20, 1 << 21)
#: PG_log_dirty and PG_SH_forced, which it may have. A PV guest has no others but PG_SH_enable and
#: PG_refcounts.
_OPTIONAL = 1 << 12 | 1 << 22
_PV = _OPTIONAL | 1 << 20 | 1 << 11


def infer(memory: XenMemory, translated: Sequence[int], others: Sequence[int], size: int) -> int:
    """The offset; AbsentError if not exactly one fits.

    ``translated`` and ``others`` are the addresses of structs of ``size`` bytes: of translated
    guests, and of PV guests.
    """
    found: set[int] | None = None
    for addresses, fits in ((translated, _is_translated), (others, _is_pv)):
        for address in addresses[:MAX_SAMPLED_DOMAINS]:
            data = memory.struct(address, size)
            if data is None:
                continue
            numbers = memoryview(data[: len(data) // 4 * 4]).cast("I")
            own = {at * 4 for at, value in enumerate(numbers) if fits(value)}
            found = own if found is None else found & own
    if not translated or not found or len(found) > 1:
        raise AbsentError("the paging mode of domains is not found by its values")
    return found.pop()


def _is_translated(value: int) -> bool:
    return value & ~_OPTIONAL in (_TRANSLATED | kind for kind in _KINDS)


def _is_pv(value: int) -> bool:
    return not value & ~_PV
