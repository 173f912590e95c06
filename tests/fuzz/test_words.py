"""Every command on every kind of synthetic dump, with some words of kernel data replaced."""

import contextlib
import io
import json
import os
import random

import pytest

from xenkdump_fast import cli
from xenkdump_forge import KINDS, SyntheticDump, faults, write_dump

from . import words
from .words import Place

COMMANDS = (
    *("bt --all", "bt -a", "sys", "ps", "log", "mod", "vtop init_task", "check"),
    *("notes", "domains --all", "vcpus --all"),
    *("bt --hypervisor", "sys --hypervisor", "log --hypervisor"),
)
ALONE = ("notes", "domains", "vcpus")
#: The number of words replaced at once, and of mutated dumps of each kind.
REPLACED, TIMES = 6, 6


@pytest.fixture(scope="module", params=KINDS)
def intact(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SyntheticDump, bytes, list[Place]]:
    synthetic = write_dump(
        tmp_path_factory.mktemp("words") / "dump", request.param, extra=faults.drop_untouched
    )
    data = synthetic.vmcore.read_bytes()
    return synthetic, data, words.places(str(synthetic.vmcore), str(synthetic.vmlinux), data)


def test_data_of_each_kind_is_found(intact: tuple[SyntheticDump, bytes, list[Place]]) -> None:
    kinds = {place.kind for place in intact[2]}
    assert {"task", "stack", "top of stack", "run queue", "variable"} <= kinds


@pytest.mark.parametrize("seed", range(TIMES))
def test_words(intact: tuple[SyntheticDump, bytes, list[Place]], seed: int) -> None:
    synthetic, data, places = intact
    chance = random.Random(seed)
    changes = [words.change(places, chance, data) for _ in range(REPLACED)]
    with synthetic.vmcore.open("r+b", buffering=0) as file:
        try:
            for change in changes:
                os.pwrite(file.fileno(), change.new, change.offset)
            for command in COMMANDS:
                _run(command, synthetic, changes)
        finally:
            for change in changes:
                old = data[change.offset : change.offset + len(change.new)]
                os.pwrite(file.fileno(), old, change.offset)


def _run(command: str, synthetic: SyntheticDump, changes: object) -> None:
    name, *operands = command.split()
    files = [str(synthetic.vmcore)]
    if name not in ALONE and "--hypervisor" not in operands:
        files.insert(0, str(synthetic.vmlinux))
    options = [word for word in operands if word.startswith("-")]
    symbols = [word for word in operands if not word.startswith("-")]
    for form in ([], ["--json"]):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.main([name, *options, *form, *files, *symbols])
        where = (command, form, changes)
        assert status in (0, 1, 3), where
        shown = (out.getvalue() + err.getvalue()).replace("\t", " ").split("\n")
        assert all(line.isprintable() for line in shown), where
        assert status == 0 or err.getvalue(), where
        if form and status == 0:
            assert json.loads(out.getvalue())["command"].split()[0] == name, where
