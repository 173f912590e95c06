"""Opens domains with their kernels, where many run the same build.

The image of a kernel that is read from memory serves all domains with that build, whose build ids
are compared. If the first ones do not have it in their memory, it is not searched for in the
others.
"""

from typing import TYPE_CHECKING

from .._native import AbsentError, Image
from ..session import Domain, own_kernel
from ..session.domain import Options
from ..session.platform import platform_of

if TYPE_CHECKING:
    from ..session import Dump
    from ..xen.guests import GuestKernel

#: Domains with a build in which its image is searched for.
_SEARCHES = 2
#: dom0: its kernel is used again, because the signature begins with it.
_KEPT = 0
#: Offsets of kernels of other domains that are tried first.
_HINTS = 16


class Builds:
    """The builds of the kernels of a host."""

    def __init__(self, dump: "Dump", vmlinux: str | None) -> None:
        self._dump = dump
        self._vmlinux = vmlinux
        self._images: dict[GuestKernel, Image] = {}
        self._failed: dict[GuestKernel, int] = {}
        self._kept: Domain | None = None
        #: Whether ``vmlinux`` is the kernel of a domain that was opened.
        self.vmlinux_used = False
        #: Where other kernels were found in their images.
        self.hints: list[int] = []

    def opened(self, number: int, kernel: "GuestKernel | None") -> Domain:
        """A domain with its kernel, of the build that Xen's records lead to; AbsentError.

        dom0 is kept open.
        """
        if number != _KEPT:
            return self._open(number, kernel)
        if self._kept is None:
            self._kept = self._open(number, kernel)
        return self._kept

    def _open(self, number: int, kernel: "GuestKernel | None") -> Domain:
        build = None if kernel is None else self._build(kernel)
        found = None if build is None else self._by_image(number, build)
        if found is not None:
            return found
        if build is not None and self._failed.get(build, 0) >= _SEARCHES:
            return self._by_vmlinux(number, build)
        try:
            domain, used = own_kernel.opened(self._dump, number, self._vmlinux, self._dump.domain)
        except AbsentError:
            if build is not None:
                self._failed[build] = self._failed.get(build, 0) + 1
            raise
        self.vmlinux_used |= used
        image = domain.kernel.image
        if build is not None and image.is_memory and image.symbol_source == "kallsyms":
            self._images[build] = image
        return domain

    def _build(self, kernel: "GuestKernel") -> "GuestKernel":
        offset = kernel.offset
        if offset is not None and offset not in self.hints:
            self.hints.append(offset)
            del self.hints[:-_HINTS]
        # What is of the domain, not of the build.
        return kernel._replace(nodename="", address=None, start=None)

    def _by_image(self, number: int, build: "GuestKernel") -> Domain | None:
        image = self._images.get(build)
        if image is None:
            return None
        try:
            domain = Domain(number, platform_of(self._dump, number), image, Options())
            _ = domain.kernel
        except AbsentError:
            return None
        return domain

    def _by_vmlinux(self, number: int, build: "GuestKernel") -> Domain:
        if self._vmlinux is not None:
            try:
                domain = self._dump.domain(number, self._vmlinux)
            except AbsentError:
                pass  # of another build
            else:
                self.vmlinux_used = True
                return domain
        raise AbsentError(
            f"Linux {build.release} was not searched for: its symbols are not in the memory of "
            f"{_SEARCHES} other domains that run it"
        )
