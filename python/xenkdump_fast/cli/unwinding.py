"""``--unwind``: which of the unwinder's methods are used."""

import argparse
from collections.abc import Sequence

#: What there is, the best first; ORC is Linux's alone.
METHODS = ("orc", "cfi", "fp", "scan")


def add_option(parser: argparse.ArgumentParser, methods: Sequence[str] = METHODS) -> None:
    """The option; its value is a list of methods, or None."""

    def listed(text: str) -> list[str]:
        found = text.split(",")
        for method in found:
            if method not in methods:
                there = ", ".join(methods)
                raise argparse.ArgumentTypeError(f"no method {method!r} (there are {there})")
        return found

    what = f"limit them: {','.join(methods)}"
    parser.add_argument("--unwind", type=listed, metavar="METHODS", help=what)
