"""``mod`` as crash prints it, and as JSON."""

from collections.abc import Iterator
from typing import Any

from ..commands.mod import Modules
from .escape import visible


def lines(result: Modules) -> Iterator[str]:
    """A heading, then module by module; nothing where none is loaded."""
    if not result.modules:
        return
    width = result.word * 2
    names = [visible(module.name) for module in result.modules]
    name_width = max(map(len, names))
    size_width = max(len(str(module.total)) for module in result.modules)
    base = "TEXT_BASE" if result.split else "BASE"
    yield (
        f"{_centred('MODULE', width)}  {'NAME':{name_width}}  {_centred(base, width)}  "
        f"{'SIZE':>{size_width}}  OBJECT FILE"
    )
    for module, name in zip(result.modules, names, strict=True):
        symbols = "  [CONFIG_KALLSYMS]" if module.symbols else ""
        yield (
            f"{module.address:{width}x}  {name:{name_width}}  {module.base:{width}x}  "
            f"{module.total:>{size_width}}  (not loaded){symbols}"
        )


def _centred(title: str, width: int) -> str:
    """``title`` in the middle of ``width``, one column to the left if that is not even."""
    left = max(0, (width - len(title)) // 2)
    return (" " * left + title).ljust(width)


def json(result: Modules) -> dict[str, Any]:
    """The command's own part of the JSON object."""
    return {
        "domain": result.domain,
        "modules": [
            {
                "module": hex(module.address),
                "name": module.name,
                "text_base": hex(module.base),
                "size": module.total,
                "symbols": module.symbols,
            }
            for module in result.modules
        ],
    }
