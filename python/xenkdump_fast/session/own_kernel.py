"""Opens a domain with its own kernel, where a vmlinux may be that of another domain."""

from collections.abc import Callable

from .._native import AbsentError
from .domain import Domain
from .dump_file import DumpFile

#: Opens a domain by its id, with a vmlinux or without one.
Open = Callable[[int, str | None], Domain]


def opened(
    dump: DumpFile, number: int, vmlinux: str | None, open_domain: Open
) -> tuple[Domain, bool]:
    """The domain with its kernel, and whether that is ``vmlinux``.

    Raises AbsentError if the kernel is not found.
    """
    if vmlinux is not None and _may_run(dump, number, vmlinux):
        try:
            return open_domain(number, vmlinux), True
        except AbsentError:
            pass  # another kernel, or damage, which is reported below
    domain = open_domain(number, None)
    _ = domain.kernel
    return domain, False


def _may_run(dump: DumpFile, number: int, vmlinux: str) -> bool:
    from ..linux.boot.build_id import Build
    from .formats import open_image
    from .platform import platform_of

    build = platform_of(dump, number).build()
    return build is None or not Build.of(open_image(vmlinux)).differs(build)
