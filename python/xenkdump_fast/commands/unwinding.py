"""``--unwind``: the methods that the unwinder uses."""

import argparse
from collections.abc import Sequence

#: Every method, the best first.
METHODS = ("orc", "cfi", "fp", "scan")
#: The methods for Xen: only Linux has ORC.
XEN_METHODS = METHODS[1:]


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option; its value is a list of names, or None."""
    parser.add_argument(
        "--unwind",
        type=lambda text: text.split(","),
        metavar="METHODS",
        help=f"limit the unwinder to these: {','.join(METHODS)}",
    )


def check(wanted: Sequence[str], *, hypervisor: bool) -> None:
    """ValueError if one of the ``wanted`` methods does not exist for the target."""
    methods = XEN_METHODS if hypervisor else METHODS
    for name in wanted:
        if name not in methods:
            raise ValueError(f"no unwind method {name!r}; available: {', '.join(methods)}")
