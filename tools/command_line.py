"""Writes the completion scripts and the manual page from the parsers of the commands.

Usage: ``python -m tools.command_line [--check]``. The scripts are made by shtab, the page by
argparse-manpage. ``xkdump completion`` prints the scripts; the wheel installs the page.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from xenkdump_fast import arguments
from xenkdump_fast.commands import COMMANDS
from xenkdump_fast.commands.completion import SHELLS
from xenkdump_fast.commands.contract import Operands

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "python" / "xenkdump_fast" / "completion"
#: maturin installs what is below ``data`` in the environment's prefix.
PAGE = ROOT / "packaging" / "data" / "share" / "man" / "man1" / "xkdump.1"
#: Options that name a file.
FILES = {"xen_syms", "vmlinux", "vmcoreinfo"}


def parsers() -> argparse.ArgumentParser:
    """The parser of all commands, with what shtab completes the arguments with."""
    parser = arguments.overview(complete=True)
    (subparsers,) = (
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    for name, command in COMMANDS.items():
        operands: Operands | None = getattr(arguments.command_module(command), "OPERANDS", None)
        for action in subparsers.choices[name]._actions:
            if action.dest in FILES or (action.dest == "words" and command.target != "none"):
                action.complete = shtab.FILE
            elif action.dest == "words" and operands is not None:
                action.choices = operands.choices
                if action.choices is None:
                    action.complete = shtab.DIRECTORY
    return parser


def page(parser: argparse.ArgumentParser) -> str:
    """The manual page."""
    parser.man_short_description = "read Xen and Linux kernel crash dumps"  # type: ignore[attr-defined]
    found = str(Manpage(parser, format="pretty"))
    # Without the date of generation, so that a page changes with the parsers only.
    found = re.sub(r'^(\.TH XKDUMP "1") .*$', r'\1 "" "xkdump" "xenkdump_fast"', found, flags=re.M)
    found, count = re.subn(r"^\.SH COMMENTS\nExit status: ", ".SH EXIT STATUS\n", found, flags=re.M)
    assert count == 1
    return f"{found.rstrip()}\n\n.SH ENVIRONMENT\n{arguments.FILES}\n"


def files() -> dict[Path, str]:
    """The generated files."""
    os.environ["COLUMNS"] = "100"  # argparse wraps usages
    parser = parsers()
    made = {SCRIPTS / f"xkdump.{shell}": shtab.complete(parser, shell) for shell in SHELLS}
    made[PAGE] = page(parser)
    return {
        path: "\n".join(line.rstrip() for line in text.strip().split("\n")) + "\n"
        for path, text in made.items()
    }


def main() -> None:
    """Writes the files; with ``--check``, ends with an error if they are not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for path, text in files().items():
        if check and (not path.exists() or path.read_text() != text):
            sys.exit(f"{path.relative_to(ROOT)} is not current: run python -m tools.command_line")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


if __name__ == "__main__":
    main()
