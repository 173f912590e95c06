"""``volatility``: volatility3's plugins on a domain."""

import os
from collections.abc import Sequence

from .._typing import NamedTuple
from ..session import Domain
from .contract import Operands

OPERANDS = Operands(
    "PLUGIN [ARG ...]",
    "volatility3's arguments: its options, a plugin, the plugin's options",
    "...",
)


class Options(NamedTuple):
    """What to run."""

    #: The command line of volatility3.
    operands: Sequence[str] = ()
    #: Where the symbol file is kept; a temporary directory if it is None.
    cache_dir: str | None = None


def run(target: Domain, options: Options = Options()) -> "Session":
    """Prepares volatility3. MissingPackageError if it is not installed."""
    from ..bridges.volatility import runner

    runner.check()
    cache = options.cache_dir or os.environ.get("XKDUMP_CACHE_DIR") or None
    return Session(target, options.operands or ["--help"], cache)


class Session(NamedTuple):
    """volatility3, ready to be started."""

    domain: Domain
    words: Sequence[str]
    cache: str | None

    def serve(self) -> None:
        """Runs it. Its exit status is that of the process, unless it is 0."""
        from ..bridges.volatility import runner

        status = runner.run(self.domain, self.words, self.cache)
        if status:
            raise SystemExit(status)
