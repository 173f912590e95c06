"""``vm``: the virtual memory areas of processes, by drgn."""

from .through_drgn import JSON, OPERANDS, Options, runner

__all__ = ["JSON", "OPERANDS", "Options", "run"]

run = runner("vm")
