"""``notes`` on real dumps: the contents of the notes of kernels and of the toolstack."""

from collections.abc import Callable

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main


def test_the_xen_that_a_domain_was_dumped_under(
    dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = dump_file("xen417-three-domains/domu1.core")
    (note,) = (note for note in xk.open(path).notes if note.kind == "dumpcore_xen_version")
    fields = note.fields
    assert (fields["xen_major_version"], fields["xen_minor_version"]) == (4, 17)
    assert fields["xen_extra_version"] == ".7"
    assert fields["xen_capabilities"].startswith("xen-3.0-x86_64")
    assert (fields["virt_start"], fields["page_size"]) == (0xFFFF_8000_0000_0000, 4096)
    assert main(["notes", path]) == 0
    assert 'xen_compile_by: "pkg-xen-devel"' in capsys.readouterr().out


def test_texts_have_no_padding(dump_file: Callable[[str], str]) -> None:
    notes = xk.open(dump_file("xen417-dom0/vmcore")).notes
    (text,) = (note.fields["text"] for note in notes if note.kind == "vmcoreinfo_xen")
    assert text.endswith("\n")
    assert "\0" not in text
