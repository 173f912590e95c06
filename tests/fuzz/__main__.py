"""Runs one target under atheris: ``python -m tests.fuzz TARGET CORPUS [libFuzzer's options]``."""

import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["xenkdump_fast"]):
    from . import domain_list, linux, printk

TARGETS = {"printk": printk, "domain_list": domain_list, "linux": linux}


def main() -> None:
    """Writes the seeds to the corpus, and runs libFuzzer with its options."""
    printk.only_small_rings()
    name, corpus, *options = sys.argv[1:]
    target = TARGETS[name]
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(target.seeds()):
        (folder / f"seed-{i}").write_bytes(seed)
    atheris.Setup([sys.argv[0], corpus, *options], target.check)
    atheris.Fuzz()


main()
