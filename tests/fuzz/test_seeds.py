"""The seeds that `make fuzz` starts from."""

import subprocess
import sys
from pathlib import Path

FUZZ = Path(__file__).resolve().parents[2] / "rust" / "xenkdump" / "fuzz"


def test_every_target_has_seeds(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FUZZ / "seeds.py", tmp_path], check=True)
    targets = {path.stem for path in (FUZZ / "fuzz_targets").glob("*.rs")}
    assert targets
    assert {folder.name for folder in tmp_path.iterdir()} == targets
    assert all(any(folder.iterdir()) for folder in tmp_path.iterdir())
