"""Where a kernel is in machine memory: its root page table, its paging format, its KASLR offset.

Every source is a claim that may be wrong. A root is accepted only if the kernel's ``linux_banner``
can be read through it, and under Xen only if the domain's P2M maps the page of the banner to the
same frame as the page tables do. Two domains may run the same kernel, and the order of the notes
does not say whose root comes first: a pCPU may have been running a domU, or an HVM guest, when the
host crashed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from ..._contexts import suppress
from ..._native import P2M, AbsentError, AddressSpace, Image, MemoryFault, Symbols
from ..._typing import TYPE_CHECKING, NamedTuple
from ...limits import MAX_KASLR_OFFSETS, MAX_LINUX_BANNER, MAX_REPORTED_ROOTS, MAX_ROOTS
from . import build_id, claims, vmcoreinfo
from .claims import UNMOVED, Claim
from .image import BANNER, PAGE, first_symbol, formats, link_base
from .roots import Banners, Root, Roots, space

if TYPE_CHECKING:
    from ..._native import Paging


class Location(NamedTuple):
    """How to reach a kernel's virtual memory."""

    #: Machine address of the top page table.
    root: int
    #: Name of the paging format.
    paging: "Paging"
    #: The KASLR offset: the distance of the kernel from where its image is linked.
    slide: int
    #: The source of the root, in words.
    how: str
    #: The VMCOREINFO that led to it; empty if none did, or if it is another kernel's.
    facts: Mapping[str, str]
    #: The bit that marks encrypted memory in page-table entries; None is that of the notes.
    encryption_mask: int | None = None
    #: Claims that were rejected, and what could not be verified.
    warnings: tuple[str, ...] = ()


def locate(
    roots: Roots,
    p2m: P2M | None,
    claimed: Sequence[Claim],
    physical: AddressSpace | None,
    *,
    force: bool = False,
) -> Location:
    """Finds the kernel through its own swapper_pg_dir, else through ``roots``.

    ``p2m`` is the domain's own P2M, ``physical`` its pseudo-physical memory. Both are None without
    Xen, or if no P2M can be read. ``claimed`` are the claims of the user, then those of notes.
    With ``force``, a claim of the user is used even if the kernel is not found where it says, and
    page tables without the kernel's banner are accepted. Raises AbsentError, which says what was
    tried.
    """
    return _Search(roots, p2m, claimed, physical).run(force=force)


class _Search:
    """One search for a kernel."""

    def __init__(
        self,
        roots: Roots,
        p2m: P2M | None,
        claimed: Sequence[Claim],
        physical: AddressSpace | None,
    ) -> None:
        self._roots = roots
        self._dump = roots.dump
        self._image = roots.image
        self._p2m = p2m
        self._claimed = claimed
        self._physical = physical
        #: Why the roots were refused.
        self._tried: list[str] = []
        linked = self._image.symbols()
        banner = linked.get("linux_banner")
        if banner is None:
            path = self._image.path
            problem = "not a Linux kernel, or stripped"
            if "idle_vcpu" in linked:
                problem = "a xen-syms, in place of a vmlinux (of a hypervisor: see --hypervisor)"
            raise AbsentError(f"{path}: no symbol linux_banner: {problem}")
        self._banner = banner
        self._base = link_base(self._image, linked)

    def run(self, *, force: bool) -> Location:
        """Finds the kernel, as ``locate`` does."""
        found, claim = self._by_claims()
        if found is None:
            found = self._without_claims()
        if found is not None:
            found = self._checked(found, claim)
        if force:
            found = self._forced(found)
        if found is None:
            reason = "; ".join(self._tried[:MAX_REPORTED_ROOTS]) or "there is no root to try"
            path = self._image.path
            raise AbsentError(f"the kernel of {path} was not found in the dump: {reason}")
        return found

    def _by_claims(self) -> tuple[Location | None, Claim | None]:
        """Where the first claim that holds says, and that claim."""
        for claim in (*claims.completed(self._claimed), UNMOVED):
            found = self._by_claim(claim)
            if found is not None:
                return found, claim
        return None, None

    def _by_claim(self, claim: Claim) -> Location | None:
        """Where a claim says; None, and reasons in ``_tried``, if the kernel is not there."""
        banner = self._banner + (claim.slide or 0)
        to_physical = (claim.phys_base or 0) - self._base
        symbols = self._image.symbols(claim.slide or 0)
        physical, image, mask = self._physical, self._image, self._mask(claim)
        own = () if physical is None else _own_roots(image, symbols, physical, to_physical)
        for candidates in (Roots(self._dump, image, own), self._roots):
            found = candidates.banners(banner, mask)
            match = self._match(found, banner + to_physical)
            if match is not None:
                root, paging = match
                slide = claim.slide or 0
                return Location(root.address, paging, slide, root.how, claim.facts, mask)
        return None

    def _mask(self, claim: Claim) -> int | None:
        return claim.encryption_mask if self._image.word == 8 else None

    def _match(self, found: Banners, physical: int) -> "tuple[Root, Paging] | None":
        """The root that maps the banner to the frame that the P2M has for its physical address."""
        self._tried += found.refused
        if not found.by_frame:
            return None
        if self._p2m is None:
            return next(iter(found.by_frame.values()))[0]
        if not 0 <= physical < 1 << 64:
            self._tried.append(f"linux_banner is at the invalid physical address {physical:#x}")
            return None
        kind, mfn = self._p2m.entry(physical // PAGE)
        if mfn in found.by_frame:
            return found.by_frame[mfn][0]
        owned = "" if mfn is None else f" {mfn:#x}"
        for frame, ((root, paging), *_) in islice(found.by_frame.items(), MAX_REPORTED_ROOTS):
            self._tried.append(
                f"{root.how} {root.address:#x} ({paging}): another domain's: its linux_banner is "
                f"in mfn {frame:#x}, but pfn {physical // PAGE:#x} of this domain is {kind}{owned}"
            )
        return None

    def _without_claims(self) -> Location | None:
        """Where page tables and memory show the kernel, if no claim holds."""
        if self._p2m is not None:  # PV kernels have no KASLR offset
            return None
        from . import kaslr  # rarely needed

        dump, image = self._dump, self._image
        tried: set[int | None] = set()
        for claim in (*self._by_idt(), *kaslr.by_roots(dump, image, self._roots.each)):
            if claim.slide not in tried and len(tried) < MAX_KASLR_OFFSETS:
                tried.add(claim.slide)
                found = self._by_claim(claim)
                if found is not None:
                    return found
        if (found := self._newest(kaslr.by_text(dump, image))) is not None:
            return found
        # Under Xen the image that is found may be another domain's.
        return None if self._physical is None else self._newest(kaslr.by_image(dump, image))

    def _by_idt(self) -> Iterator[Claim]:
        from . import kaslr

        symbols = self._image.symbols()
        for cr3, idt in islice(kaslr.idts(self._dump.notes), MAX_ROOTS):
            for paging in formats(self._image):
                slide = kaslr.by_idt(self._dump.virtual(cr3, paging), idt, symbols)
                if slide:
                    yield Claim("", slide)

    def _newest(self, candidates: Iterable[Claim]) -> Location | None:
        """The location to which the registers of the CPUs fit best.

        A previous boot of the same kernel may have left its memory behind, page tables included.
        """
        found: dict[tuple[int, int], Location] = {}
        for claim in candidates:
            location = self._by_claim(claim)
            if location is not None:
                found.setdefault((location.root, location.slide), location)
        if len(found) <= 1:
            return next(iter(found.values()), None)
        fitting = {key: self._fitting(location) for key, location in found.items()}
        best = max(fitting, key=lambda key: fitting[key])
        location = found[best]
        if list(fitting.values()).count(fitting[best]) == 1:
            return location
        others = ", ".join(f"{slide:#x}" for key in found if key != best for slide in key[1:])
        warning = (
            f"cannot verify that the kernel at KASLR offset {location.slide:#x} is that of the "
            f"last boot: memory has the same kernel at {others}"
        )
        return location._replace(warnings=(warning,))

    def _fitting(self, location: Location) -> int:
        """How many CPUs have a stack pointer that the page tables map."""
        virtual = self._space(location)
        found = 0
        notes = (note for note in self._dump.notes if note.kind == "prstatus")
        for note in islice(notes, MAX_ROOTS):
            registers = note.fields["registers"]
            with suppress(MemoryFault):
                virtual.word(registers.get("rsp", registers.get("esp", 0)), self._image.word)
                found += 1
        return found

    def _space(self, location: Location) -> AddressSpace:
        return space(self._dump, location.root, location.paging, location.encryption_mask)

    def _checked(self, found: Location, accepted: Claim | None) -> Location:
        """With warnings about the claims that were tried before it was found."""
        phys_base = None
        if self._p2m is None and self._physical is not None:
            banner = self._banner + found.slide
            phys_base = self._space(found).translate(banner) - (banner - self._base)
        warnings = list(found.warnings)
        for claim in self._claimed:
            warnings += (
                f"{claim.source} {contradiction}"
                for contradiction in claim.contradictions(found.slide, phys_base)
            )
            if accepted is not None and claim.source == accepted.source:
                break
        if accepted is not None and (problem := self._other_kernel(found, accepted)) is not None:
            warnings.append(problem)
            found = found._replace(facts={})
        return found._replace(warnings=tuple(warnings))

    def _other_kernel(self, found: Location, claim: Claim) -> str | None:
        """How VMCOREINFO differs from the kernel that was found where it says."""
        virtual = self._space(found)
        symbols = self._image.symbols(found.slide)
        try:
            banner = virtual.cstring(symbols["linux_banner"], MAX_LINUX_BANNER)
        except MemoryFault:  # only its start was read until now
            return None
        release = banner.removeprefix(BANNER).partition(b" ")[0].decode("utf-8", "backslashreplace")
        own = {"OSRELEASE": release, "BUILD-ID": build_id.build_id(symbols, virtual)}
        for key, value in own.items():
            claimed = claim.facts.get(key)
            if None not in (claimed, value) and claimed != value:
                return f"{claim.source} is not used: its {key} is {claimed}, the kernel's {value}"
        return None

    def _forced(self, found: Location | None) -> Location | None:
        """Where the user's claims say, or any if the kernel was not found; None if that fails."""
        given = [claim for claim in self._claimed if claim.given]
        if found is not None and not any(
            any(claim.contradictions(found.slide, None)) for claim in given
        ):
            return found
        for claim in (*claims.completed(given or self._claimed), *(() if given else (UNMOVED,))):
            location = self._unverified(claim, found)
            if location is not None:
                source = claim.source or "no claim that it moved"
                warning = (
                    f"cannot verify that {self._image.path} is the kernel of the dump, nor where "
                    f"it is: forced, it is used at KASLR offset {location.slide:#x} "
                    f"({source}), with the page tables of {location.how}"
                )
                return location._replace(warnings=(*location.warnings, warning))
        return found

    def _unverified(self, claim: Claim, found: Location | None) -> Location | None:
        """The location that a claim leads to if the banner is not looked for.

        The page tables must map the start of the text, and to the address that follows from the
        claim if there is pseudo-physical memory. VMCOREINFO has the addresses of the dump's kernel.
        """
        slide, image, physical = claim.slide or 0, self._image, self._physical
        to_physical = (claim.phys_base or 0) - self._base
        symbols = image.symbols(slide)
        text = vmcoreinfo.number(claim.facts, "SYMBOL(_stext)", 16) or symbols.get("_stext")
        if text is None:
            return None
        roots: list[Root] = []
        if physical is not None:
            named = vmcoreinfo.number(claim.facts, "SYMBOL(swapper_pg_dir)", 16)
            if named is not None:
                with suppress(MemoryFault):
                    at = physical.translate(named + to_physical)
                    roots.append(Root(at, f"swapper_pg_dir of {claim.source}"))
            roots += _own_roots(image, symbols, physical, to_physical)
        mask = self._mask(claim)
        for root in (*roots, *self._roots.each):
            for paging in formats(image):
                with suppress(MemoryFault):
                    at = space(self._dump, root.address, paging, mask).translate(text)
                    if physical is None or physical.translate(text + to_physical) == at:
                        facts = claim.facts
                        return Location(root.address, paging, slide, root.how, facts, mask)
        return None if found is None else found._replace(slide=slide, facts=claim.facts)


def _own_roots(
    image: Image, symbols: Symbols, physical: AddressSpace, to_physical: int
) -> Iterator[Root]:
    """The root of the kernel itself, by its image: it does not depend on what the CPUs ran."""
    swapper = first_symbol(symbols, "swapper")
    if swapper is None:
        return
    with suppress(MemoryFault):
        yield Root(physical.translate(swapper + to_physical), "swapper_pg_dir")
    # In 2.6.18-xen swapper_pg_dir is a pointer to the table.
    with suppress(MemoryFault):
        pointer = physical.word(swapper + to_physical, image.word)
        yield Root(physical.translate(pointer + to_physical), "*swapper_pg_dir")
