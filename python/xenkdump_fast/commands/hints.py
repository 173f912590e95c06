"""What to type in place of a word that is not a command: crash's commands, and wrong places."""

from collections.abc import Sequence

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


def of_options(command: str, option: str) -> str | None:
    """What to say of an option that a command does not have; None if nothing helps.

    crash has no long options.
    """
    return None if option.startswith("--") else _OPTIONS.get(command)


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
    return None if other is None else f"no command {first}: try xkdump {other}"


def in_shell(name: str) -> str:
    """What helps, in a shell that does not have a command."""
    command = COMMANDS.get(name)
    if command is not None and name != "shell":
        return f"outside of the shell, 'xkdump {name}' runs it"
    if name in _DRGN:
        return f"outside of the shell, 'xkdump crash ... {name}' runs that of drgn"
    other = _OTHER_NAMES.get(name)
    return "'help' lists them" if other is None else f"try {other}"
