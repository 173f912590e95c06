"""Paths of every file that a session opens, as strings and as path objects."""

from pathlib import Path

import xenkdump_fast as xk
from xenkdump_fast import cli


def test_path_objects(tmp_path: Path) -> None:
    assert cli.main(["sample", str(tmp_path)]) == 0
    vmlinux, vmcore = tmp_path / "vmlinux", tmp_path / "vmcore"
    xen_map = tmp_path / "xen-syms.map"
    xen_map.write_text("ffff82d040200000 T _start\nffff82d040200040 T __high_start\n")
    dump = xk.open(vmcore)
    assert dump.path == xk.open(str(vmcore)).path == str(vmcore)
    assert dump.domain(0, vmlinux=vmlinux).kernel.image.path == str(vmlinux)
    assert dump.xen(xen_map, force=True).symbols_path == str(xen_map)
