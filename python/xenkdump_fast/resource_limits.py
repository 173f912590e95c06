"""The limits that the system sets on the memory of the process (``ulimit -d``, ``ulimit -v``)."""

import resource

#: Bytes that any command may need: the tables of a vmlinux, an index of a P2M, Python itself.
#: Rust ends the process if a small allocation fails, so a lower limit is refused at the start.
_NEEDED = 64 << 20
_LIMITS = {resource.RLIMIT_DATA: "ulimit -d", resource.RLIMIT_AS: "ulimit -v"}


def check() -> None:
    """MemoryError if a limit is too low for any dump."""
    for limit, option in _LIMITS.items():
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and soft < _NEEDED:
            raise MemoryError(
                f"memory is limited to {soft >> 10} KiB ({option}); at least {_NEEDED >> 10} KiB "
                "are needed"
            )
