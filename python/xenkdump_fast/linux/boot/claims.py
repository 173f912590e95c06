"""Claims about where a kernel is: of VMCOREINFO texts, of options, of page tables.

A note may be damaged, truncated or another kernel's, and an option wrong. A claim is only a
candidate: ``locate.py`` uses it if the kernel is found where it says.
"""

import os
from collections.abc import Iterable, Iterator, Mapping

from ... import api_arguments
from ..._native import DumpError
from ..._typing import NamedTuple
from ...limits import MAX_VMCOREINFO_NOTE
from ...regular_files import open_regular
from . import vmcoreinfo

#: The keys of VMCOREINFO that say where the kernel is.
KERNELOFFSET, PHYS_BASE, SME_MASK = "KERNELOFFSET", "NUMBER(phys_base)", "NUMBER(sme_mask)"
#: Bits of a page-table entry that may mark encrypted memory. AMD uses 47 and, with fewer physical
#: address bits, lower ones (CPUID 0x8000001f).
_SME_BITS = range(32, 52)
#: A KASLR offset moves addresses up; a larger one is none.
_MAX_SLIDE = 1 << 63


class Claim(NamedTuple):
    """Where a kernel is, according to one source."""

    #: The source in words; it starts the warning if the claim is rejected. Empty if a rejection
    #: causes no warning.
    source: str
    #: The KASLR offset; None if it is unknown.
    slide: int | None = 0
    #: ``phys_base`` of x86_64: what is added to the address that the image is linked at. None if
    #: unknown.
    phys_base: int | None = 0
    #: The VMCOREINFO that it is from.
    facts: Mapping[str, str] = {}
    #: Whether the user gave it.
    given: bool = False

    @property
    def encryption_mask(self) -> int | None:
        """The bit of page-table entries that marks encrypted memory, or 0; None if unknown."""
        mask = vmcoreinfo.number(self.facts, SME_MASK)
        if mask is None or (mask and mask not in (1 << bit for bit in _SME_BITS)):
            return None
        return mask

    @property
    def release(self) -> str | None:
        """The release of the kernel."""
        return self.facts.get("OSRELEASE")

    def contradictions(self, slide: int, phys_base: int | None) -> Iterator[str]:
        """What it says that is not so; ``phys_base`` is None if it is not known."""
        if self.slide not in (None, slide):
            offset = f"the kernel was found at KASLR offset {slide:#x}"
            if self.facts and KERNELOFFSET not in self.facts:
                yield f"has no KERNELOFFSET; {offset}"
            else:
                yield f"claims KASLR offset {self.slide:#x}; {offset}"
        elif phys_base is not None and self.phys_base not in (None, phys_base):
            found = f"the kernel was found at phys_base {phys_base:#x}"
            if self.facts and PHYS_BASE not in self.facts:
                yield f"has no phys_base; {found}"
            else:
                yield f"claims phys_base {self.phys_base:#x}; {found}"


#: A kernel without KASLR, where its image is linked.
UNMOVED = Claim("")


def of_text(source: str, facts: Mapping[str, str], *, given: bool = False) -> Claim:
    """The claim of a VMCOREINFO text. A kernel that can move writes both numbers."""
    slide = vmcoreinfo.number(facts, KERNELOFFSET, 16) or 0
    phys_base = vmcoreinfo.number(facts, PHYS_BASE) or 0
    return Claim(source, slide if 0 <= slide < _MAX_SLIDE else 0, phys_base, facts, given)


def of_notes(texts: Iterable[Mapping[str, str]]) -> list[Claim]:
    """The claims of the VMCOREINFO notes, in file order. An empty note has none."""
    return [of_text(f"VMCOREINFO note {i}", facts) for i, facts in enumerate(texts) if facts]


class Given(NamedTuple):
    """What the user says about the location of the kernel."""

    kaslr_offset: int | None = None
    phys_base: int | None = None
    #: The path and the contents of a file with VMCOREINFO.
    text: tuple[str, Mapping[str, str]] | None = None

    @classmethod
    def of(
        cls,
        kaslr_offset: int | None = None,
        phys_base: int | None = None,
        vmcoreinfo: str | os.PathLike[str] | None = None,
    ) -> "Given":
        """Checks the numbers and reads the file.

        Raises TypeError for what is no int, ValueError for a number that is no offset, OSError if
        the file cannot be read, DumpError if it does not have VMCOREINFO.
        """
        if kaslr_offset is not None:
            kaslr_offset = api_arguments.integer("kaslr_offset", kaslr_offset)
            if not 0 <= kaslr_offset < _MAX_SLIDE:
                raise ValueError(f"{kaslr_offset:#x} is not a KASLR offset")
        if phys_base is not None:
            phys_base = api_arguments.integer("phys_base", phys_base)
            if not -_MAX_SLIDE <= phys_base < _MAX_SLIDE:
                raise ValueError(f"{phys_base:#x} is not a phys_base")
        return cls(kaslr_offset, phys_base, None if vmcoreinfo is None else _read(vmcoreinfo))

    def claims(self) -> list[Claim]:
        """Its claims: a number overrides that of the file."""
        found = []
        if self.text is not None:
            path, facts = self.text
            found.append(of_text(f"the given VMCOREINFO {path}", facts, given=True))
        if self.kaslr_offset is not None or self.phys_base is not None:
            base = found.pop() if found else Claim("", None, None, given=True)
            numbers = {"KASLR offset": self.kaslr_offset, "phys_base": self.phys_base}
            named = " and ".join(name for name, value in numbers.items() if value is not None)
            found.append(
                base._replace(
                    source=f"the given {named}",
                    slide=base.slide if self.kaslr_offset is None else self.kaslr_offset,
                    phys_base=base.phys_base if self.phys_base is None else self.phys_base,
                )
            )
        return found


#: Nothing is given.
NOTHING_GIVEN = Given()


def _read(path: str | os.PathLike[str]) -> tuple[str, Mapping[str, str]]:
    name = os.fspath(path)
    with open_regular(name) as file:
        text = file.read(MAX_VMCOREINFO_NOTE)
    facts = vmcoreinfo.parse(text.decode("utf-8", "backslashreplace"))
    if not facts.keys() & {"OSRELEASE", KERNELOFFSET, PHYS_BASE}:
        raise DumpError(f"{name}: not VMCOREINFO: it has neither OSRELEASE nor KERNELOFFSET")
    return name, facts


def completed(claims: Iterable[Claim]) -> Iterator[Claim]:
    """The claims; one with an unknown number is combined with the numbers of the others."""
    known = list(claims)
    for claim in known:
        others = [other for other in (*known, UNMOVED) if other is not claim]
        slides = [claim.slide] if claim.slide is not None else [other.slide for other in others]
        bases = [claim.phys_base] if claim.phys_base is not None else [o.phys_base for o in others]
        combined = ((slide, base) for slide in slides for base in bases)
        for slide, base in dict.fromkeys(combined):
            if slide is not None and base is not None:
                yield claim._replace(slide=slide, phys_base=base)
