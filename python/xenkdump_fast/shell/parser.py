"""Parsers of the shell: errors are exceptions, and the files of a command are those of the dump."""

import argparse
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

from .. import arguments
from ..commands import Command
from ..commands.contract import Operands, UsageError
from .session import ALL, HYPERVISOR, Context


class HelpError(Exception):
    """``--help`` was given; the text of the exception is the help."""


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        raise HelpError(parser.format_help())


class ShellParser(arguments.Parser):
    """Raises UsageError and HelpError where argparse ends the process."""

    def __init__(self, **texts: Any) -> None:
        super().__init__(**texts, add_help=False)
        self.color = False  # a member since Python 3.14: the help may be filtered
        self.add_argument(
            "-h", "--help", nargs=0, action=_Help, default=argparse.SUPPRESS, help="this text"
        )

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(f"{self.prog}: {self.hinted(message)}")


def parser_of(command: Command, module: ModuleType) -> ShellParser:
    """The parser of a command without its files."""
    operands: Operands | None = getattr(module, "OPERANDS", None)
    words = "" if operands is None else f" {arguments.metavar(operands)}"
    parser = ShellParser(
        prog=command.name,
        usage=f"{command.name} [OPTION ...]{words}",
        description=command.summary,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar=words.strip() or None,
        help=argparse.SUPPRESS if operands is None else operands.help,
    )
    add = parser.add_argument
    if command.hypervisor:
        add("--hypervisor", action="store_true", help=command.hypervisor)
    if command.vmlinux != "no":
        add("--domain", metavar="DOMAIN", help="another domain than the current one")
    if not command.interactive:
        add("--json", action="store_true", help=arguments.JSON_HELP)
    if hasattr(module, "add_options"):
        module.add_options(parser)
    return parser


def parse(
    command: Command, module: ModuleType, words: Sequence[str], context: Context
) -> argparse.Namespace:
    """The options of a command in ``context``, which it is run in if they name no other domain.

    Raises UsageError and HelpError.
    """
    parser = parser_of(command, module)
    adapted = arguments.from_crash(module, words)
    before, _, literal = arguments.partition(adapted, "--")
    options = parser.parse_intermixed_args(before)
    options.words += literal
    options.json = getattr(options, "json", False)
    given = getattr(options, "domain", None)
    options.hypervisor = getattr(options, "hypervisor", False)
    where = context.where if given is None else given
    if given is None and where == HYPERVISOR and command.hypervisor is not None:
        options.hypervisor = True
    needs_domain = command.vmlinux != "no" and not options.hypervisor
    if needs_domain and where == HYPERVISOR and not command.whole:
        raise UsageError(
            f"{command.name} needs a domain: 'domain ID', or '{command.name} --domain ID'"
        )
    if command.whole and given is None:
        where = 0
    options.all_domains = needs_domain and where == ALL
    # For the checks, which are those of the command line.
    for name in arguments.OF_ONE_KERNEL:
        setattr(options, name, getattr(options, name, None))
    arguments.check(parser, command, module, options, options.words)
    options.domain = where if needs_domain else 0
    return options
