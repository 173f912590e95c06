"""``runq``: the run queues of the CPUs, by drgn."""

from .through_drgn import JSON, OPERANDS, Options, runner

__all__ = ["JSON", "OPERANDS", "Options", "run"]

run = runner("runq")
