"""What to type in place of a word that is not a command: crash's commands, and wrong places."""

import os
import re
from collections.abc import Iterable, Sequence

from . import COMMANDS

#: crash's other names of commands. ``dmesg`` is one in the shell.
_OTHER_NAMES = {
    "dmesg": "log",
    "foreach": "bt --all, or ps --state UN",
}
#: The options that precede a command; argparse accepts the start of a name.
_OVERVIEW = (("-h", "--help"), ("-V", "--version"))
#: Commands of crash that drgn has and xkdump does not.
_DRGN = frozenset(("ascii", "bpf", "btop", "eval", "ptob", "ptov", "sig", "waitq"))

#: What to say of options that crash has and a command does not.
_OPTIONS = {
    "bt": "drgn has -c, -f and -F: xkdump crash [VMLINUX] VMCORE bt ...",
    "kmem": "-i is the usage of memory; drgn prints slab caches and pages: kmem ... -- -s",
    "mod": "drgn has -t: xkdump crash [VMLINUX] VMCORE mod -t",
    "ps": "drgn has -m, -p, -G and others: xkdump crash [VMLINUX] VMCORE ps ...",
    "vtop": "--pid PID takes the page tables of a process",
}


def of_options(command: str, option: str, known: Iterable[str] = ()) -> str | None:
    """What to say of an option that is not one of ``known``, a command's; None if nothing helps.

    crash has no long options.
    """
    found = None if option.startswith("--") else _OPTIONS.get(command)
    if found is not None:
        return found
    from ..suggestions import question  # only for errors

    name = option.split(maxsplit=1)[0].partition("=")[0]
    return question(name, [one for one in known if one.startswith("--")])


def of_missing_operand(command: str, *, pid: str | None) -> str | None:
    """What to say if a command lacks operands; ``pid`` is the value of its option --pid, if any.

    None if nothing helps.
    """
    if command == "search" and pid is not None:
        return "-c takes a task; text, which follows -c in crash, is found with -t TEXT"
    return None


def of_operand(word: str, problem: str, takes: str = "[VMLINUX] VMCORE") -> str | None:
    """What a word behind the dump is, if a problem is about it and a file may have been meant.

    ``takes`` is what the command takes as files. None if there is nothing to say.
    """
    if word not in re.split(r"[\s:;,'()]+", problem):
        return None
    from ..session import formats

    what = formats.what(word)
    if what is not None:
        return f"{word} is {what}, and follows the files: these are {takes}"
    is_name = "/" in word or "." in word or f"has no task {word}" in problem
    if not is_name or word.isdecimal() or "did you mean" in problem:
        return None
    return f"there is no file {word} either"


def of_missing_file(word: str, files: str, operands: str) -> str | None:
    """What to say if a word in the place of a file before the dump names none.

    It may be an operand; a path is none. None if there is nothing to say.
    """
    if "/" in word or "." in word or os.path.exists(word):
        return None
    return f"operands follow the files: {files} {operands}"


def on_command_line(words: Sequence[str]) -> str | None:
    """What to say of a command line that does not start with a command; None if nothing helps."""
    if not words:
        return None
    first, *rest = words
    if any(first == short or long.startswith(first) for short, long in _OVERVIEW):
        return None
    if first.startswith("-"):
        name = next((word for word in rest if word in COMMANDS), None)
        return None if name is None else f"options follow the command: xkdump {name} {first} ..."
    if first in _DRGN:
        return f"{first} is a command of drgn: xkdump crash [VMLINUX] VMCORE {first} ..."
    other = _OTHER_NAMES.get(first)
    if other is not None:
        return f"no command {first}: try xkdump {other}"
    from ..suggestions import question  # only for errors

    asked = question(first, COMMANDS)
    if asked is not None:
        return f"no command {first}; {asked}"
    # argparse lists all commands.
    return f"neither a command nor a file: {first}" if re.search(r"[/.]", first) else None


def in_shell(name: str) -> str:
    """What helps, in a shell that does not have a command."""
    command = COMMANDS.get(name)
    if command is not None and name != "shell":
        return f"outside of the shell, 'xkdump {name}' runs it"
    if name in _DRGN:
        return f"outside of the shell, 'xkdump crash ... {name}' runs that of drgn"
    other = _OTHER_NAMES.get(name)
    if other is not None:
        return f"try {other}"
    if re.fullmatch(r"\w+\.[\w.,]+", name):
        return f"try struct {name}"  # crash takes a struct for a command
    from ..suggestions import question  # only for errors

    return question(name, COMMANDS) or "'help' lists them"
