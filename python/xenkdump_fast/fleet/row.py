"""What triage says about a dump: one row of the table."""

from typing import TypedDict

#: The state of a row. "no fault": the dump is intact, but nothing in it died.
OK, NO_FAULT, FAILED = "ok", "no fault", "failed"


class Row(TypedDict):
    """One dump. What is not known is None; ``docs/commands/triage.md`` describes the columns."""

    path: str
    #: Bytes of the file, and when it was last changed: seconds since 1970.
    size: int | None
    modified: float | None
    status: str
    #: Why it failed.
    error: str | None
    #: The node name of dom0 or of the only kernel.
    host: str | None
    xen: str | None
    #: The kernel that died; dom0's if Xen did.
    kernel: str | None
    #: "Xen", "dom0", "domain 3" or "kernel".
    died: str | None
    kind: str | None
    #: The hash of the signature, and its normal form.
    signature: str | None
    signature_text: str | None
    module: str | None
    #: The line that announced it.
    message: str | None
    #: Seconds since 1970, and since boot.
    time: int | None
    uptime: int | None
    #: Warnings about what the dump lacks, or what an answer rests on.
    missing: list[str]
    #: Seconds that it took, and bytes that were copied to read a remote file.
    duration: float
    copied: int
    #: The report's path, relative to the table's directory.
    report: str | None


def empty(path: str, size: int | None = None, modified: float | None = None) -> Row:
    """The row of a dump that has not been examined yet."""
    return {
        "path": path,
        "size": size,
        "modified": modified,
        "status": FAILED,
        "error": None,
        "host": None,
        "xen": None,
        "kernel": None,
        "died": None,
        "kind": None,
        "signature": None,
        "signature_text": None,
        "module": None,
        "message": None,
        "time": None,
        "uptime": None,
        "missing": [],
        "duration": 0.0,
        "copied": 0,
        "report": None,
    }


def failed(path: str, size: int | None, modified: float | None, error: str) -> Row:
    """The row of a dump that could not be examined."""
    row = empty(path, size, modified)
    row["error"] = error
    return row
