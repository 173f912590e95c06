"""The session header."""

import os
from typing import NamedTuple

from ..linux import header
from ..session import Domain


class System(NamedTuple):
    """What ``xkdump sys`` found."""

    kernel: str
    dump: str
    domain: int
    word: int
    p2m_source: str | None
    header: header.Header


def run(domain: Domain) -> System:
    """Reads the header facts of a domain's kernel."""
    return System(
        kernel=os.path.basename(domain.kernel.image.path),
        dump=os.path.basename(domain.dump.path),
        domain=domain.id,
        word=domain.kernel.word,
        p2m_source=None if domain.p2m is None else domain.p2m.source,
        header=header.read(domain.kernel),
    )
