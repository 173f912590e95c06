"""A kernel in memory with corrupt pointers, numbers and page-table entries."""

import atexit
import contextlib
import gc
import io
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import xenkdump_fast as xk
from xenkdump_fast import cli
from xenkdump_forge import SyntheticDump, write_dump

from .inputs import PAGE, Input

#: The command to run, by the first byte of an input.
COMMANDS = ("bt --all", "ps", "sys", "log", "mod", "check")
#: Mutations of a word: replaced by a number, by the address of another word, or by an entry for
#: another word's page; or one bit is flipped.
NUMBER, POINTER, ENTRY, BIT = range(4)
#: The number of words changed at once.
CHANGES = 24
#: Variables from which the other data is reached.
VARIABLES = ("init_task", "init_pid_ns", "modules", "prb", "__per_cpu_offset", "init_uts_ns")


class Word(NamedTuple):
    """A word of the kernel's memory that is not zero."""

    address: int
    machine: int
    offset: int
    value: int


class Host(NamedTuple):
    """A dump that is changed and restored, and the words to change."""

    dump: SyntheticDump
    words: list[Word]


@cache
def host() -> Host:
    """Writes the dump, once."""
    folder = tempfile.mkdtemp(prefix="fuzz-linux-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    dump = write_dump(Path(folder), "modern", memory=64 << 20)
    domain = xk.open(str(dump.vmcore)).domain(0, str(dump.vmlinux))
    virtual, symbols = domain.virtual, domain.kernel.symbols
    tasks = [int(task["task"], 16) for task in dump.plan["domains"][0]["tasks"]]
    variables = [at for name in VARIABLES if (at := symbols.get(name)) is not None]
    pages = dict.fromkeys(at & -PAGE for at in (*variables, *tasks))
    words = [word for page in pages for word in _words(dump, domain, page)]
    # The page tables that map a task.
    tables = dict.fromkeys(step[1] & -PAGE for step in virtual.mapping(tasks[1]).levels)
    for table in tables:
        data = struct.unpack("<512Q", domain.dump.machine.read(table, PAGE))
        words += [
            Word(0, table + 8 * i, _offset(dump, table + 8 * i), value)
            for i, value in enumerate(data)
            if value
        ]
    return Host(dump, words)


def _words(dump: SyntheticDump, domain: xk.Domain, page: int) -> Iterator[Word]:
    machine = domain.virtual.translate(page)
    for i, value in enumerate(struct.unpack("<512Q", domain.virtual.read(page, PAGE))):
        if value:
            at = machine + 8 * i
            yield Word(page + 8 * i, at, _offset(dump, at), value)


def _offset(dump: SyntheticDump, machine: int) -> int:
    for start, size, _, offset in dump.plan["segments"]:
        into = machine - int(start, 16)
        if 0 <= into < int(size, 16):
            return int(offset, 16) + into
    raise ValueError(f"{machine:#x} is in no segment")


def check(data: bytes) -> None:
    """Changes words, runs a command, restores them: a documented exit status, clean text."""
    given = Input(data)
    dump, words = host()
    command = COMMANDS[given.number(1) % len(COMMANDS)].split()
    changed: list[Word] = []
    # Exclude existing objects (modules, pytest's items) from the collection below.
    gc.freeze()
    with dump.vmcore.open("r+b", buffering=0) as file:
        try:
            while given.at < len(data) and len(changed) < CHANGES:
                word = words[given.number(2) % len(words)]
                changed.append(word)
                new = _changed(word, given, words) % (1 << 64)
                os.pwrite(file.fileno(), new.to_bytes(8, "little"), word.offset)
            _run(command, dump)
        finally:
            for word in changed:
                os.pwrite(file.fileno(), word.value.to_bytes(8, "little"), word.offset)
            # A kernel is part of reference cycles, which keep the dump mapped.
            gc.collect()
            gc.unfreeze()


def _changed(word: Word, given: Input, words: list[Word]) -> int:
    kind = given.number(1) % 4
    if kind == NUMBER:
        return given.number(8)
    if kind == BIT:
        return word.value ^ 1 << given.number(1) % 64
    other = words[given.number(2) % len(words)]
    if kind == ENTRY:
        return other.machine & -PAGE | word.value & 0xFFF
    return other.address + given.number(1)


def _run(command: list[str], dump: SyntheticDump) -> None:
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        status = cli.main([*command, str(dump.vmlinux), str(dump.vmcore)])
    assert status in (0, 1, 3), status
    # The kernel's own lines may have tabs.
    shown = sink.getvalue().replace("\t", " ").split("\n")
    assert all(line.isprintable() for line in shown)


def seeds() -> Iterator[bytes]:
    """For each command, an input without mutations and one with each kind of mutation."""
    for number in range(len(COMMANDS)):
        yield bytes([number])
        changes = struct.pack("<HBQ", 3, NUMBER, 5) + struct.pack("<HBHB", 40, POINTER, 9, 16)
        changes += struct.pack("<HBH", 65000, ENTRY, 12) + struct.pack("<HBB", 90, BIT, 13)
        yield bytes([number]) + changes
