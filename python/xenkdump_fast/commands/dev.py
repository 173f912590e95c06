"""``dev``: character, block and PCI devices, by drgn."""

from .through_drgn import JSON, OPERANDS, Options, runner

__all__ = ["JSON", "OPERANDS", "Options", "run"]

run = runner("dev")
