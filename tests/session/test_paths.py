"""Paths of every file that a session opens, as strings and as path objects."""

from pathlib import Path

import xenkdump_fast as xk
from xenkdump_fast import sample


def test_path_objects(tmp_path: Path) -> None:
    made = sample.forge(tmp_path / "dump", "modern")
    xen_map = tmp_path / "xen-syms.map"
    xen_map.write_text("ffff82d040200000 T _start\nffff82d040200040 T __high_start\n")
    dump = xk.open(made.vmcore)
    assert dump.path == xk.open(str(made.vmcore)).path == str(made.vmcore)
    kernel = dump.domain(0, vmlinux=made.vmlinux).kernel
    assert kernel.image.path == str(made.vmlinux)
    assert dump.xen(xen_map, force=True).symbols_path == str(xen_map)
