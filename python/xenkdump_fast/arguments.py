"""The arguments of ``xkdump``: parsers, files from the environment, checks of values."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import takewhile
from types import ModuleType

from . import parsing
from ._typing import Any, NoReturn
from .commands import COMMANDS, Command
from .commands.contract import Operands
from .output.escape import printable

#: Environment variables that name the files.
_VMLINUX, _VMCORE = "XKDUMP_VMLINUX", "XKDUMP_VMCORE"
FILES = (
    f"The environment variables {_VMLINUX} and {_VMCORE} name files that are not given; "
    "XKDUMP_DEBUG_PATH names folders with debug files, XKDUMP_CACHE_DIR a directory for unpacked "
    "dumps, XKDUMP_CACHE_SIZE the memory for decompressed pages."
)
#: Options that --hypervisor has no use for.
_OF_DOMAINS = ("domain", "p2m_source", "kaslr_offset", "phys_base", "vmcoreinfo")
#: The kinds of two files if the first is a dump and the second is not its vmlinux.
_DUMP_ALONE = (["dump", "dump"], ["dump", None])
#: The value of --domain for each of them.
ALL = "all"
JSON_HELP = "one JSON object instead of text"
#: Options about one kernel, which --domain all has no use for.
OF_ONE_KERNEL = ("force", "kaslr_offset", "phys_base", "vmcoreinfo")
_STATUSES = (
    "Exit status: 0 success, 1 the dump does not hold what was asked for, 2 wrong usage, 3 a file "
    "cannot be read, is not a dump or is damaged beyond use, or memory or file descriptors are "
    "exhausted, 70 a bug in xkdump, 74 the output cannot be written, 130 interrupted."
)


class _Formatter(argparse.HelpFormatter):
    """Takes the width of the terminal from the system.

    argparse makes a formatter for each option, and asks shutil, which imports decompressors.
    """

    def __init__(self, *args: Any, **texts: Any) -> None:
        texts.setdefault("width", _columns() - 2)
        super().__init__(*args, **texts)


def _columns() -> int:
    """As ``shutil.get_terminal_size``."""
    text = os.environ.get("COLUMNS", "")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # closed, or no terminal
        return 80


# Its texts are not translated. To find that out, gettext would import locale.
vars(argparse)["_"] = lambda text: text  # of a group without a description it is None


class Parser(argparse.ArgumentParser):
    """Escapes arguments in messages: they may be names of files."""

    def __init__(self, **texts: Any) -> None:
        super().__init__(formatter_class=_Formatter, **texts)

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        super().error(printable(self.hinted(message)))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help on stdout that cannot be written is an error; argparse ignores it."""
        if file is not sys.stdout or not message:
            super()._print_message(message, file)
            return
        from .output.writer import Writer

        Writer().text(message.removesuffix("\n").split("\n"))

    def hinted(self, message: str) -> str:
        """The message, with what helps if it is about an option that the command does not have."""
        option = message.removeprefix("unrecognized arguments: ")
        if option == message or not option.startswith("-"):
            return message
        from .commands import hints

        command = self.prog.rpartition(" ")[2]
        hint = hints.of_options(command, option, self._option_string_actions)
        return message if hint is None else f"{message}; {hint}"


def overview(*, complete: bool = False) -> argparse.ArgumentParser:
    """What ``xkdump --help`` shows; also rejects an unknown command.

    With ``complete``, the parsers of the commands have their arguments: for manual pages and for
    completion. To parse, only that of one command is needed.
    """
    parser = Parser(
        prog="xkdump",
        description="Reads Xen and Linux kernel crash dumps, and any domain in them.",
        epilog=_STATUSES,
    )
    parser.add_argument("-V", "--version", action="version", version=version())
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        if complete:
            module = command_module(command)
            texts = _texts(command, module)
            _add_arguments(commands.add_parser(**texts, help=command.summary), command, module)
        else:
            commands.add_parser(command.name, help=command.summary)
    topics = commands.add_parser("help", help="the options of a command: xkdump help COMMAND")
    topics.add_argument("topic", nargs="?", choices=list(COMMANDS), metavar="COMMAND")
    return parser


def version() -> str:
    """What ``xkdump --version`` prints."""
    from ._native import VERSION

    return f"xkdump {VERSION}"


def command_module(command: Command) -> ModuleType:
    """The module of a command."""
    return import_module(f".commands.{command.module}", __package__)


def parse(command: Command, module: ModuleType, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments of a command; an error ends the process."""
    texts = _texts(command, module)
    del texts["name"]
    parser = Parser(**texts)
    _add_arguments(parser, command, module)
    operands: Operands | None = getattr(module, "OPERANDS", None)
    # argparse takes what follows -- for options if options and words are intermixed.
    given, _, literal = partition(from_crash(module, argv), "--")
    rest: list[str] = []
    if operands is not None and operands.arity == "...":
        (given, rest), literal = _split_rest(parser, argv), []
    options = parser.parse_intermixed_args(given)
    options.words += literal
    options.argv, options.literal = given, literal
    options.words = _with_environment(command, options, has_operands=operands is not None)
    words = [*_take_files(parser, command, operands, options), *rest]
    options.json = getattr(options, "json", False)
    options.task = None
    options.all_domains = getattr(options, "domain", None) == ALL
    check(parser, command, module, options, words)
    if getattr(options, "domain", None) is None:
        options.domain = 0
    return options


def check(
    parser: argparse.ArgumentParser,
    command: Command,
    module: ModuleType,
    options: argparse.Namespace,
    words: list[str],
) -> None:
    """Takes the operands from ``words``, and checks them and the values of options."""
    operands: Operands | None = getattr(module, "OPERANDS", None)
    options.operands = words
    taken = 0 if operands is None else 1 if operands.arity == "1" else len(words)
    if words[taken:]:
        problem = f"unrecognized arguments: {' '.join(words[taken:])}"
        if getattr(options, "vmcore", None) is not None and taken == 0:
            from .commands import hints

            hint = hints.of_operand(words[0], problem, files_of(command, options))
            problem += f"; there is no file {words[0]} either" if hint is None else f"; {hint}"
        parser.error(problem)
    needs_operands = operands is not None and (operands.hypervisor or not options.hypervisor)
    if needs_operands and operands is not None and operands.arity in ("1", "+") and not words:
        problem = f"the following arguments are required: {operands.metavar}"
        # The shell has no files.
        name = "xen_syms" if options.hypervisor else "vmlinux"
        symbols: str | None = getattr(options, name, None)
        from .commands import hints  # only for errors

        hint = hints.of_missing_operand(command.name, pid=getattr(options, "pid", None))
        if hint is not None:
            problem += f"; {hint}"
        elif symbols is not None:
            hint = hints.of_missing_file(symbols, files_of(command, options), metavar(operands))
            problem += "" if hint is None else f"; there is no file {symbols}: {hint}"
        parser.error(problem)
    if operands is not None and operands.choices is not None:
        for word in words:
            if word not in operands.choices:
                known = ", ".join(operands.choices)
                parser.error(f"argument {operands.metavar}: no {word!r}; available: {known}")
    _check_values(parser, options)
    if options.all_domains and not command.interactive:
        _check_all_domains(parser, command, options)


def from_crash(module: ModuleType, words: Sequence[str]) -> Sequence[str]:
    """The words of a command, with what has another meaning in crash replaced."""
    adapt: Callable[[Sequence[str]], Sequence[str]] | None = getattr(module, "from_crash", None)
    return words if adapt is None else adapt(words)


def partition(argv: Sequence[str], word: str) -> tuple[list[str], bool, list[str]]:
    """The words before the first ``word``, whether it occurs, and the words after it."""
    at = argv.index(word) if word in argv else len(argv)
    return list(argv[:at]), at < len(argv), list(argv[at + 1 :])


def _split_rest(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Options and files, and the rest of the command line from the first operand on."""
    takes_value = {
        option: action.nargs != 0 for action in parser._actions for option in action.option_strings
    }
    kinds: list[str] = []
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            return [*argv[:at]], [*argv[at + 1 :]]
        if word.startswith("-") and word != "-":
            at += 2 if takes_value.get(word, False) else 1
            continue
        kind = _kind(word) if os.path.exists(word) else None
        if kind is None and not _lacks_dump(kinds):
            break
        kinds.append(kind or "dump")
        at += 1
    return [*argv[:at]], [*argv[at:]]


def _lacks_dump(kinds: Sequence[str]) -> bool:
    """Whether a word after files of these kinds must be the dump: the environment names none."""
    return "dump" not in kinds and not os.environ.get(_VMCORE)


def _words(command: Command, module: ModuleType) -> list[str]:
    """The files and operands of a command, as in its usage."""
    operands: Operands | None = getattr(module, "OPERANDS", None)
    files = ["VMCORE"] if command.target != "none" else []
    if command.vmlinux != "no":
        files.insert(0, "[VMLINUX]")
    return files if operands is None else [*files, metavar(operands)]


def _texts(command: Command, module: ModuleType) -> dict[str, Any]:
    """The arguments of the constructor of a command's parser, and its name."""
    usage = [f"xkdump {command.name} [OPTION ...] {' '.join(_words(command, module))}"]
    if command.hypervisor:
        usage.append(f"xkdump {command.name} --hypervisor [OPTION ...] [XEN-SYMS] VMCORE")
    return {
        "name": command.name,
        "prog": f"xkdump {command.name}",
        "usage": "\n       ".join(usage),
        "description": command.summary,
        "epilog": _STATUSES if command.target == "none" else f"{FILES} {_STATUSES}",
    }


def _add_arguments(parser: argparse.ArgumentParser, command: Command, module: ModuleType) -> None:
    operands: Operands | None = getattr(module, "OPERANDS", None)
    what = "" if command.target == "none" else "the dump"
    if command.vmlinux != "no":
        what = "the kernel's vmlinux, vmlinuz or System.map, if there is one, and the dump"
    if operands is not None:
        what = f"{what}, then {operands.help}" if what else operands.help
    parser.add_argument("words", nargs="*", metavar=" ".join(_words(command, module)), help=what)
    _add_common_options(parser, command)
    if hasattr(module, "add_options"):
        module.add_options(parser)


def files_of(command: Command, options: argparse.Namespace) -> str:
    """The files that a command takes, in words."""
    if options.hypervisor:
        return "[XEN-SYMS] VMCORE"
    if command.vmlinux != "no":
        return "[VMLINUX] VMCORE"
    return "VMCORE, with --vmlinux VMLINUX" if hasattr(options, "kernels") else "VMCORE"


def metavar(operands: Operands) -> str:
    """The operands as a usage shows them."""
    name = operands.metavar
    forms = {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "1": name, "...": f"[{name} ...]"}
    return forms[operands.arity]


def _add_common_options(parser: argparse.ArgumentParser, command: Command) -> None:
    add = parser.add_argument
    if command.hypervisor:
        add(
            "--hypervisor",
            action="store_true",
            help=f"{command.hypervisor}; the files are then [XEN-SYMS] VMCORE",
        )
    if command.vmlinux != "no" and not command.whole:
        add(
            "--domain",
            metavar="ID|NAME",
            help="by its id, its UUID or the node name of its kernel; default: 0, dom0"
            + ("; all: every domain, each with its own kernel" if command.all_domains else ""),
        )
    if command.target == "domain":
        add("--p2m-source", metavar="SOURCE", help="force one: list, linear or cr3")
        add(
            "--force",
            action="store_true",
            help="accept a vmlinux of another build, and use what cannot be verified",
        )
        _add_location_options(parser)
    if command.target != "none":
        add(
            command.input_format,
            dest="format",
            choices=["raw"],
            help="take the dump for a raw image of physical memory",
        )
        add(
            "--cache-dir",
            metavar="DIR",
            help="where a dump that is compressed as a whole (gzip, bzip2, xz, zstd) is unpacked, "
            "once; default: the environment variable XKDUMP_CACHE_DIR",
        )
    if not command.interactive:
        add("--json", action="store_true", help=JSON_HELP)


def _add_location_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "location of the kernel",
        "Where the kernel is, if the dump does not say it, or says it wrong. What is given is "
        "verified; with --force it is used in any case.",
    )
    add = group.add_argument
    add("--kaslr-offset", type=_kaslr_offset, metavar="HEX", help="as KERNELOFFSET in VMCOREINFO")
    add("--phys-base", type=_phys_base, metavar="NUMBER", help="as phys_base in VMCOREINFO")
    add("--vmcoreinfo", metavar="FILE", help="a file with the text of VMCOREINFO")


def _kaslr_offset(text: str) -> int:
    return _bounded(text, 16)


def _phys_base(text: str) -> int:
    return _bounded(text, 0)


def _bounded(text: str, base: int) -> int:
    found = parsing.number(text, base)
    if found is None:
        raise argparse.ArgumentTypeError(f"not a number of at most 64 bits: {text!r}")
    return found


def _with_environment(
    command: Command, options: argparse.Namespace, *, has_operands: bool
) -> list[str]:
    """``options.words`` with the files that the environment names in place of absent ones.

    If operands may follow, words that name no file are operands.
    """
    words: list[str] = options.words
    vmlinux, vmcore = (os.environ.get(name) or None for name in (_VMLINUX, _VMCORE))
    if _has_no_dump(command, options):
        return words
    if command.vmlinux == "no" or getattr(options, "hypervisor", False):
        given = bool(words) and (not has_operands or os.path.exists(words[0]))
        return words if given or vmcore is None else [vmcore, *words]
    files = words[:2]
    if has_operands:
        files = list(takewhile(os.path.exists, files))
    if len(files) == 2 and vmlinux is not None and [*map(_kind, files)] in _DUMP_ALONE:
        # What follows is another part of a split dump, or an operand that is the name of a file.
        files = files[:1]
    others = words[len(files) :]
    is_kernel = len(files) == 1 and _kind(files[0]) == "kernel"
    if is_kernel and vmcore is not None and command.vmlinux == "required":
        files = [*files, vmcore]
    elif len(files) == 1 and vmlinux is not None and not is_kernel:
        files = [vmlinux, *files]
    elif not files and vmcore is not None:
        files = [vmcore] if vmlinux is None else [vmlinux, vmcore]
    else:
        return words
    return [*files, *others]


def _take_files(
    parser: argparse.ArgumentParser,
    command: Command,
    operands: Operands | None,
    options: argparse.Namespace,
) -> list[str]:
    """Moves the files from ``options.words`` to members of their own; returns the other words."""
    words: list[str] = options.words
    options.hypervisor = getattr(options, "hypervisor", False)
    options.xen_syms = getattr(options, "xen_syms", None)
    options.vmlinux = options.vmcore = None
    options.parts = []
    options.notes = []
    if _has_no_dump(command, options):
        return words
    has_operands = options.hypervisor and operands is not None and operands.hypervisor
    if options.hypervisor:
        count = _count_files(words) if has_operands else min(len(words), 2)
        symbols, names = "xen_syms", "VMCORE"
    elif command.vmlinux == "required":
        symbols, names, count = "vmlinux", "VMCORE", _count_files(words)
    else:
        symbols, names = "vmlinux", "VMCORE"
        count = 1 if command.vmlinux == "no" else min(len(words), 2)
    if count == 2 and command.vmlinux != "required" and _is_kdump(words[0]):
        # Parts of a split dump, without symbols.
        count = 1
    if len(words) < max(count, 1):
        given = f"; {words[0]} is {_what(words[0])}" if words else ""
        parser.error(f"the following arguments are required: {names}{given}")
    if command.vmlinux == "no" and not options.hypervisor and _kind(words[0]) == "kernel":
        only = f"xkdump {command.name} takes no VMLINUX before VMCORE"
        if hasattr(options, "kernels"):
            only += ", but --vmlinux VMLINUX"
        parser.error(f"{words[0]} is {_what(words[0])}: {only}")
    files = words[:count]
    if len(files) == 2 and _are_swapped(files):
        files.reverse()
        what = "xen-syms" if options.hypervisor else "the vmlinux"
        options.notes = [f"{files[0]} is {what} and {files[1]} the dump, by their contents"]
    if count == 2:
        setattr(options, symbols, files[0])
    options.vmcore = files[count - 1]
    others = words[count:]
    if others and _is_kdump(options.vmcore):
        options.parts = list(takewhile(_is_kdump, others))
        others = others[len(options.parts) :]
    if options.hypervisor and others and not has_operands:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return others


def _has_no_dump(command: Command, options: argparse.Namespace) -> bool:
    """Whether the command is run on no dump."""
    name = command.without_dump
    return command.target == "none" or (name is not None and getattr(options, name) is not None)


def _is_kdump(word: str) -> bool:
    if not os.path.exists(word):
        return False
    from .session.formats import is_kdump

    return is_kdump(word)


def _kind(path: str) -> str | None:
    from .session import formats  # only for commands with files

    return formats.kind(path)


def _what(path: str) -> str | None:
    """What a file is, in words; None if there is none."""
    from .session import formats

    return formats.what(path)


def _count_files(words: Sequence[str]) -> int:
    """How many of the first words are files, of a command that may have a vmlinux.

    The dump alone, or with a vmlinux before or after it. A word after the dump may be an operand
    that happens to be the name of a file.
    """
    if len(words) < 2:
        # A vmlinux alone is not enough.
        return 2 if words and _kind(words[0]) == "kernel" else 1
    first, second = _kind(words[0]), _kind(words[1])
    if first == "dump":
        # After a dump, its vmlinux; or another part of it, if it was split.
        return 2 if second is not None and not _is_kdump(words[1]) else 1
    if first == "kernel" or second is not None:
        return 2
    # Neither is recognized. A file that is not a dump is reported when it is opened.
    return 1 if os.path.exists(words[0]) and not os.path.exists(words[1]) else 2


def _are_swapped(files: Sequence[str]) -> bool:
    return [_kind(path) for path in files] == ["dump", "kernel"]


def _check_all_domains(
    parser: argparse.ArgumentParser, command: Command, options: argparse.Namespace
) -> None:
    if not command.all_domains:
        names = ", ".join(name for name, known in COMMANDS.items() if known.all_domains)
        parser.error(f"argument --domain: {ALL} is only available for {names}")
    for name in OF_ONE_KERNEL:
        given = getattr(options, name)
        if given is not None and given is not False:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"argument {option}: not allowed with argument --domain {ALL}")


def _check_values(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name in _OF_DOMAINS if options.hypervisor else ():
        if getattr(options, name, None) is not None:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"argument {option}: not allowed with argument --hypervisor")
    try:
        if getattr(options, "unwind", None) is not None:
            from .commands import unwinding

            unwinding.check(options.unwind, hypervisor=options.hypervisor)
        if getattr(options, "p2m_source", None) is not None:
            from .xen.p2m_sources import check_name

            check_name(options.p2m_source)
        if getattr(options, "vmlinux", None) is not None and hasattr(options, "kaslr_offset"):
            from .linux.boot.claims import Given

            Given.of(options.kaslr_offset, options.phys_base)
    except ValueError as error:
        parser.error(str(error))
