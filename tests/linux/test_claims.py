"""Claims about where a kernel is."""

from pathlib import Path

import pytest

from xenkdump_fast.linux.boot.claims import UNMOVED, Claim, Given, completed, of_notes, of_text


@pytest.mark.parametrize(
    ("mask", "valid"),
    [("0", True), (str(1 << 47), True), (str(3 << 46), False), ("1", False), ("x", False)],
)
def test_encryption_masks(mask: str, *, valid: bool) -> None:
    claim = of_text("a note", {"NUMBER(sme_mask)": mask})
    assert claim.encryption_mask == (int(mask) if valid else None)
    assert UNMOVED.encryption_mask is None


def test_a_claim_without_one_number_is_completed_by_the_others() -> None:
    offset = Claim("an offset", 0x200_0000, None)
    base = Claim("a base", None, -4096)
    note = Claim("a note", 0x300_0000, 8192)
    pairs = [(claim.source, *claim[1:3]) for claim in completed([offset, base, note])]
    assert pairs == [
        ("an offset", 0x200_0000, -4096),
        ("an offset", 0x200_0000, 8192),
        ("an offset", 0x200_0000, 0),
        ("a base", 0x200_0000, -4096),
        ("a base", 0x300_0000, -4096),
        ("a base", 0, -4096),
        ("a note", 0x300_0000, 8192),
    ]


def test_numbers_override_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "vmcoreinfo"
    file.write_text("OSRELEASE=6.1\nKERNELOFFSET=3000000\nNUMBER(phys_base)=-4096\n")
    (claim,) = Given.of(None, 8192, file).claims()
    assert claim[:3] == ("the given phys_base", 0x300_0000, 8192)
    assert claim.facts["OSRELEASE"] == "6.1"
    assert claim.given
    assert Given.of().claims() == []


def test_contradictions() -> None:
    (note,) = of_notes([{}, {"KERNELOFFSET": "2000000", "NUMBER(phys_base)": "4096"}])
    assert note.source == "VMCOREINFO note 1"
    assert list(note.contradictions(0x200_0000, 4096)) == []
    assert list(note.contradictions(0x200_0000, None)) == []
    (text,) = note.contradictions(0x200_0000, -4096)
    assert text == "claims phys_base 0x1000; the kernel was found at phys_base -0x1000"
    # The offset explains a wrong phys_base.
    assert len(list(note.contradictions(0, 0))) == 1
    silent = of_text("a note", {"OSRELEASE": "6.1"})
    (text,) = silent.contradictions(0x200_0000, None)
    assert text.startswith("has no KERNELOFFSET; ")
    (text,) = silent.contradictions(0, 4096)
    assert text.startswith("has no phys_base; ")
    assert list(Claim("", None, None).contradictions(1 << 21, 1)) == []
