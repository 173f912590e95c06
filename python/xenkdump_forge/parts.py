"""The parts of a synthetic dump before they are written."""

from __future__ import annotations

from dataclasses import dataclass, field

from .elf.core import Core
from .kernels.base import Kernel
from .plan import Json


@dataclass
class Parts:
    """The content of the files of a synthetic dump."""

    vmlinux: bytes
    core: Core
    plan: Json
    #: The kernels, dom0's first; a test can change memory through them.
    kernels: list[Kernel] = field(default_factory=list)
    #: Further files, by name.
    more: dict[str, bytes] = field(default_factory=dict)
