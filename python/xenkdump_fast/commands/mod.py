"""The loaded modules."""

from typing import NamedTuple

from ..linux import modules
from ..session import Domain


class Modules(NamedTuple):
    """What ``xkdump mod`` found."""

    domain: int
    word: int
    #: The text is told apart from the rest (6.4 on, ac3b43283923).
    split: bool
    #: By address.
    modules: list[modules.Module]


def run(domain: Domain) -> Modules:
    """Reads the list of modules."""
    kernel = domain.kernel
    found = sorted(modules.modules(kernel), key=lambda module: module.base)
    return Modules(domain.id, kernel.word, kernel.has("module.mem"), found)
