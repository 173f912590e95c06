"""drgn's prompt, and scripts for drgn."""

import os
import pkgutil
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import drgn
from drgn import Program, cli


def interact(program: Program) -> None:
    """The prompt; if stdin is not a terminal, the code in it is run."""
    if sys.stdin.isatty():
        print(cli.version_header(), file=sys.stderr, flush=True)
        cli.run_interactive(program)
    else:
        _run(program, [""], lambda names: _execute(sys.stdin.read(), "<stdin>", names))


def run_code(program: Program, code: str, words: Sequence[str]) -> None:
    """Runs code with drgn's names. An exception ends the process, as in Python."""
    _run(program, ["-e", *words], lambda names: _execute(code, "<string>", names))


def run_script(program: Program, words: Sequence[str]) -> None:
    """Runs a script, which has ``prog``, with its arguments."""
    script = words[0]
    with open(script, "rb"):
        pass  # OSError if it cannot be read, before the interpreter's arguments change
    if pkgutil.get_importer(script) is None:
        sys.path.insert(0, os.path.dirname(os.path.abspath(script)))

    def run(_names: dict[str, Any]) -> None:
        runpy.run_path(script, init_globals={"prog": program}, run_name="__main__")

    _run(program, words, run)


def _execute(code: str, name: str, names: dict[str, Any]) -> None:
    exec(compile(code, name, "exec"), names)


def _run(program: Program, argv: Sequence[str], run: Callable[[dict[str, Any]], None]) -> None:
    drgn.set_default_prog(program)
    sys.argv = [*argv]
    if argv[0] in ("", "-e"):
        sys.path.insert(0, "")
    try:
        run(cli.default_globals(program))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except Exception as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    """Prints the traceback of the user's code, and ends the process with status 1."""
    here = os.path.dirname(__file__)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(here):
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)
    sys.exit(1)
