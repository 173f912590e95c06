"""Each kind is forged once a session; tests must not write to it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from xenkdump_forge import Sample, forge

from .walk import Core


@pytest.fixture(scope="session")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sample]:
    made: dict[str, Sample] = {}

    def get(kind: str) -> Sample:
        if kind not in made:
            made[kind] = forge(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def opened(forged: Callable[[str], Sample]) -> Iterator[Callable[[str], Core]]:
    """The vmcore of a kind, in the tests' own reader."""
    with ExitStack() as stack:
        cores: dict[str, Core] = {}

        def get(kind: str) -> Core:
            if kind not in cores:
                cores[kind] = Core(forged(kind).vmcore)
                stack.callback(cores[kind].close)
            return cores[kind]

        yield get
