"""``swap``: swap devices, by drgn."""

from .through_drgn import JSON, OPERANDS, Options, runner

__all__ = ["JSON", "OPERANDS", "Options", "run"]

run = runner("swap")
