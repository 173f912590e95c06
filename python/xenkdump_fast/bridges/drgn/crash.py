"""drgn's crash-compatible commands."""

import re
import shlex
import sys
from collections.abc import Sequence

from drgn import FaultError, ObjectNotFoundError, Program
from drgn.cli import default_globals
from drgn.commands import (
    CommandArgumentError,
    CommandError,
    CommandNotFoundError,
    run_command,
)
from drgn.helpers.linux.cpumask import for_each_online_cpu, for_each_possible_cpu

from ..._native import AbsentError

#: What drgn's parser of commands gives a meaning.
_SPECIAL = re.compile(r"""[\s"#&'();<>\\`|]""")


class CommandUsageError(Exception):
    """There is no such command, or it does not have these arguments."""


def command_line(words: Sequence[str]) -> str:
    """The command as drgn parses it. A single word may have redirections and pipes."""
    if len(words) == 1:
        return words[0]
    return " ".join(shlex.quote(word) if _SPECIAL.search(word) else word for word in words)


def run(program: Program, words: Sequence[str]) -> None:
    """Runs a command, which prints its result.

    Raises CommandUsageError, or AbsentError if it fails for the lack of something in the dump or
    among drgn's types.
    """
    line = command_line(words)
    if not sys.stdout.isatty():
        program.config["crash_scroll"] = False
    try:
        run_command(program, f"crash {line}", globals=default_globals(program))
    except (CommandNotFoundError, CommandArgumentError, SyntaxError) as error:
        raise CommandUsageError(str(error)) from None
    except OSError:
        raise  # stdout, or a file of a redirection
    except CommandError as error:
        raise AbsentError(str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        why = _offline(program, error) or _described(error)
        raise AbsentError(f"crash {line}: {why}") from None


def _offline(program: Program, error: Exception) -> str | None:
    """What the KeyError of a CPU means that the crash took offline: ``ps -m`` of drgn 0.3 has the
    clocks of CPUs that are online, while tasks are still on the others. None for other errors.
    """
    key = error.args[0] if isinstance(error, KeyError) and error.args else None
    if not isinstance(key, int):
        return None
    try:
        cpus = set(for_each_possible_cpu(program)) - set(for_each_online_cpu(program))
    except (FaultError, LookupError):
        return None
    if key not in cpus:
        return None
    return f"drgn considers CPUs that are online, and CPU {key} was taken offline by the crash"


def _described(error: Exception) -> str:
    """The message of an exception of drgn; its class too, unless it is meant for users."""
    is_key = isinstance(error, KeyError) and not isinstance(error, ObjectNotFoundError)
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, LookupError | ValueError | FaultError) and text and not is_key:
        return text
    return f"{type(error).__name__}: {text}"
