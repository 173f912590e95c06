"""Finds a domain's P2M and its kernel, with the sources and roots that its platform offers."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from .._native import P2M, AbsentError, Image
from .._typing import TYPE_CHECKING, NamedTuple
from ..linux.boot.claims import NOTHING_GIVEN, Claim, Given, of_notes
from ..linux.boot.locate import Location, locate
from ..linux.boot.roots import Root, Roots
from .platform import Platform, Recorded

if TYPE_CHECKING:
    from ..xen.p2m_sources import Source


class Candidate(NamedTuple):
    """A P2M source that was tried."""

    source: "Source"
    #: None if it cannot be used.
    p2m: P2M | None
    #: Where the kernel is with this P2M; None if no root of it is known.
    location: Location | None
    #: Why it cannot be used.
    problem: str | None


class Locator:
    """The P2M sources of one domain, and the location of its kernel with each of them.

    ``image`` is the domain's vmlinux, or None; ``given`` is what the user says about the location
    of its kernel; ``force`` accepts what cannot be verified. Every page-table root is read once,
    however many P2M sources are tried.
    """

    def __init__(
        self,
        platform: Platform,
        image: Image | None,
        given: Given = NOTHING_GIVEN,
        *,
        force: bool = False,
    ) -> None:
        self.platform = platform
        self.image = image
        self._given = given
        self._force = force

    @cached_property
    def _claims(self) -> list[Claim]:
        return [*self._given.claims(), *of_notes(self.platform.vmcoreinfos)]

    @cached_property
    def _roots(self) -> Roots | None:
        """The roots that may be the kernel's; None without an image to look for through them."""
        if self.image is None:
            return None
        return Roots(self.platform.native, self.image, self.platform.roots())

    def candidates(self, name: str | None = None) -> Iterator[Candidate]:
        """Tries the sources, the best first; only those called ``name`` if it is given."""
        for source in self.platform.sources(self.image, self._roots):
            if name not in (None, source.name):
                continue
            try:
                p2m = source.open()
                yield Candidate(source, p2m, self.locate(p2m), None)
            except AbsentError as error:
                yield Candidate(source, None, None, str(error))

    def offered(self) -> list[str]:
        """Names of the sources that the dump offers, each once."""
        sources = self.platform.sources(self.image, self._roots)
        return list(dict.fromkeys(source.name for source in sources))

    def locate(self, p2m: P2M | None) -> Location | None:
        """Where the kernel is, by any root; AbsentError if it is not the domain's own."""
        return self._locate(p2m, self._roots, self.platform.roots)

    def locate_by_own_roots(self) -> Location | None:
        """Where the kernel is without a P2M, by the roots that Xen records for the domain.

        Page tables of a PV guest hold machine frames, so its virtual memory needs no P2M. Any root
        is tried if Xen records none.
        """
        own = list(self.platform.own_roots())
        if not own:
            return self.locate(None)
        roots = None if self.image is None else Roots(self.platform.native, self.image, own)
        return self._locate(None, roots, lambda: own)

    def _locate(
        self, p2m: P2M | None, roots: Roots | None, recorded: Callable[[], Iterable[Root]]
    ) -> Location | None:
        if roots is not None:
            if self.platform.identity:
                p2m = None
            has_memory = p2m is not None or self.platform.identity
            physical = self.platform.native.physical(p2m) if has_memory else None
            return locate(roots, p2m, self._claims, physical, force=self._force)
        # Without an image: a root of the domain's own, in the format that Xen records.
        records = self.platform.records if isinstance(self.platform, Recorded) else None
        root = next(iter(recorded()), None)
        if records is None or root is None:
            return None
        return Location(root.address, records.paging, 0, root.how, {})
