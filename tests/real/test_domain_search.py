"""Domains of a host whose dump does not tell where their list is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.xen.host import XenHost

from .copies import Copy

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", ["xen417-three-domains", "xen420-pv-pvh"])
def test_without_vmcoreinfo_xen(dump_file: Callable[[str], str], tmp_path: Path, name: str) -> None:
    """Idle domains are found too, and no others."""
    path = dump_file(f"{name}/vmcore")
    copy = tmp_path / "vmcore"
    shutil.copyfile(path, copy)
    notes = Copy(copy)
    notes.with_notes(*(note for note in notes.notes if note.name != b"VMCOREINFO_XEN"))
    whole, without = XenHost(xk.open(path).native), XenHost(xk.open(str(copy)).native)
    assert without.vmcoreinfo == {}
    expected = {domain.id: domain.address for domain in whole.domains()}
    assert {domain.id: domain.address for domain in without.domains()} == expected
    assert list(expected) == [0, 1, 2]
    assert any("target of a variable of Xen" in domain.how for domain in without.domains())
    assert any("no VMCOREINFO_XEN" in warning for warning in without.warnings)
    for domain in without.domains():
        assert [v.address for v in domain.vcpus] == [
            v.address for v in whole.domain(domain.id).vcpus
        ]
