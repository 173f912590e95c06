"""The process that examines dumps: ``python -m xenkdump_fast.fleet.worker MEMORY OWNER``.

It reads one JSON object per line from stdin (``path``, ``size``, ``modified``, ``options``) and
writes the row as one line to stdout. It ends with its stdin, and with the thread that started it
even if it hangs, so that none is left when that process is killed. It also ends when nothing is
asked for a while: the thread of a Dask worker that owns it may live for weeks.
"""

import ctypes
import json
import os
import resource
import signal
import sys

#: Seconds without a request.
IDLE = 600
#: prctl(): the signal that a process gets when the thread that started it ends (linux/prctl.h).
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answers requests until stdin ends.

    The arguments are the limit of memory in bytes, and the process that asks.
    """
    _end_with(int(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a library prints must not get between the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    limit = int(sys.argv[1])
    if limit:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    from .examine import Options, examine

    signal.alarm(IDLE)  # whose default is to end the process
    for line in sys.stdin:
        signal.alarm(0)
        request = json.loads(line)
        options = Options(**request["options"])
        row = examine(request["path"], request["size"], request["modified"], options)
        answers.write(json.dumps(row) + "\n")
        answers.flush()
        signal.alarm(IDLE)


def _end_with(owner: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != owner:  # it ended before
        sys.exit(1)


if __name__ == "__main__":
    main()
