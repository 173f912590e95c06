"""Each kind is written once per session; tests must not change the files."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from xenkdump_forge import SyntheticDump, write_dump

from .walk import Core


@pytest.fixture(scope="session")
def dump_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SyntheticDump]:
    dumps: dict[str, SyntheticDump] = {}

    def get(kind: str) -> SyntheticDump:
        if kind not in dumps:
            dumps[kind] = write_dump(tmp_path_factory.mktemp(kind), kind)
        return dumps[kind]

    return get


@pytest.fixture(scope="session")
def core_of(dump_of: Callable[[str], SyntheticDump]) -> Iterator[Callable[[str], Core]]:
    """The vmcore of a kind, in the tests' own reader."""
    with ExitStack() as stack:
        cores: dict[str, Core] = {}

        def get(kind: str) -> Core:
            if kind not in cores:
                cores[kind] = Core(dump_of(kind).vmcore)
                stack.callback(cores[kind].close)
            return cores[kind]

        yield get
