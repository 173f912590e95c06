"""Small dumps of several crashes, written once."""

from pathlib import Path

import pytest

from xenkdump_forge import faults, write_dump

#: Crashes, each on two hosts.
CRASHES = ("null-dereference", "hung-task", "xen-page-fault")
#: What the tests of this folder need.
PACKAGES = ("pyarrow", "jinja2", "fsspec")


@pytest.fixture(scope="session")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six dumps, a damaged one, and files that are none."""
    folder = tmp_path_factory.mktemp("fleet")
    for seed in (1, 2):
        for crash in CRASHES:
            write_dump(
                folder / f"{crash}-{seed}",
                "modern",
                memory=64 << 20,
                seed=seed,
                crash=crash,
                extra=faults.touched_only,
            )
    whole = (folder / f"{CRASHES[0]}-1" / "vmcore").read_bytes()
    (folder / "damaged").write_bytes(whole[: len(whole) // 100])
    (folder / "notes.txt").write_text("not a dump")
    return folder
