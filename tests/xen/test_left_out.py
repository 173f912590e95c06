"""A dump without the memory of domains other than dom0: makedumpfile -X."""

from pathlib import Path

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_forge import build, write_dump
from xenkdump_forge.containers import kdump

MEMORY = 64 << 20


@pytest.mark.parametrize("excluded", [1, 0, None])
def test_domains(excluded: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = xk.open(write_dump(tmp_path, "modern", memory=MEMORY).vmcore)
    frames: set[int] = set()
    if excluded is not None:
        p2m = whole.domain(excluded).p2m
        status = np.empty(p2m.pages, dtype=np.uint8)
        mfns = p2m.resolve(np.arange(p2m.pages), status=status)
        frames = {int(mfn) for mfn in mfns[status == xk.Status.OK]}
    path = tmp_path / "without"
    kdump.write(build("modern", memory=MEMORY).core, [path], kdump.Options(excluded=frames))
    assert main(["domains", str(path)]) == 0
    _, err = capsys.readouterr()
    text = "its memory was left out of the dump (as by makedumpfile -X)"
    for number in (0, 1):
        assert (f"domain {number}: {text}" in err) == (number == excluded)
