"""``mod``: the loaded modules."""

from collections.abc import Iterator, Sequence

from .._typing import NamedTuple, TypedDict
from ..linux import modules
from ..output.escape import visible
from ..output.json_types import Count, Hex
from ..session import Domain


class Options(NamedTuple):
    """``mod`` has no options."""


def run(target: Domain, options: Options = Options()) -> "Modules":
    """Reads the list of modules."""
    kernel = target.kernel
    if kernel.image.symbol_source == "kallsyms" and kernel.symbols.get("modules") is None:
        raise kernel.missing("modules")
    found = sorted(modules.modules(kernel), key=lambda module: module.base)
    warnings = () if found else (f"domain {target.id}: no module is loaded",)
    return Modules(target.id, kernel.word, kernel.has("module.mem"), found, warnings)


class ModuleJson(TypedDict):
    """A module."""

    module: Hex
    name: str
    text_base: Hex
    size: Count
    symbols: bool


class JSON(TypedDict):
    """What ``mod --json`` prints."""

    domain: Count
    modules: list[ModuleJson]


class Modules(NamedTuple):
    """The modules of a kernel."""

    domain: int
    word: int
    #: Whether a module's text is allocated apart from its data (6.4 on, ac3b43283923).
    split: bool
    #: By address.
    modules: list[modules.Module]
    warnings: Sequence[str] = ()

    def text(self) -> Iterator[str]:
        """A heading, then a line per module; nothing if none is loaded."""
        if not self.modules:
            return
        width = self.word * 2
        names = [visible(module.name) for module in self.modules]
        name_width = max(map(len, names))
        size_width = max(len(str(module.total)) for module in self.modules)
        base = "TEXT_BASE" if self.split else "BASE"
        yield (
            f"{_centred('MODULE', width)}  {'NAME':{name_width}}  {_centred(base, width)}  "
            f"{'SIZE':>{size_width}}  OBJECT FILE"
        )
        for module, name in zip(self.modules, names, strict=True):
            symbols = "  [CONFIG_KALLSYMS]" if module.symbols else ""
            yield (
                f"{module.address:{width}x}  {name:{name_width}}  {module.base:{width}x}  "
                f"{module.total:>{size_width}}  (not loaded){symbols}"
            )

    def json(self) -> JSON:
        """The domain and its modules."""
        return {
            "domain": self.domain,
            "modules": [
                {
                    "module": hex(module.address),
                    "name": module.name,
                    "text_base": hex(module.base),
                    "size": module.total,
                    "symbols": module.symbols,
                }
                for module in self.modules
            ],
        }


def _centred(title: str, width: int) -> str:
    """``title`` centred in ``width``, an odd column on the right."""
    left = max(0, (width - len(title)) // 2)
    return (" " * left + title).ljust(width)
