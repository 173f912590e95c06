"""The process of ``xkdump``, from its first import to its end.

Most commands take less time than Python's start, so that two things count: the garbage collector,
which searches the objects of every import, and the end, when Python frees each of them.
"""

import gc
import os
import sys

from ._typing import NoReturn

#: Objects that are allocated before the collector searches for cycles; by default 700.
_COLLECTION = 50_000
#: ``ExitStatus.INTERRUPTED``, which may not have been imported.
_INTERRUPTED = 130


def run() -> NoReturn:
    """Runs the command of the command line, and ends the process with its exit status."""
    try:
        gc.set_threshold(_COLLECTION)
        from .cli import main

        status = main()
    except KeyboardInterrupt:
        # Before main() handles it: Ctrl-C while modules are imported.
        status = _INTERRUPTED
    _end(status)


def _end(status: int) -> NoReturn:
    """Ends the process as ``sys.exit`` does, but without freeing its objects.

    What other modules have registered for the end has to run.
    """
    if "atexit" in sys.modules or "threading" in sys.modules:
        sys.exit(status)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(status)  # which reports it
    os._exit(status)
