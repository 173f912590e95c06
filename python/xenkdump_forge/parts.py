"""What a kind hands over to be written."""

from __future__ import annotations

from dataclasses import dataclass, field

from .elf.core import Core
from .kernels.base import Kernel
from .plan import Json


@dataclass
class Parts:
    """The content of a sample's files."""

    vmlinux: bytes
    core: Core
    plan: Json
    #: The kernels in it, dom0's first: by them a test can change what is in memory.
    kernels: list[Kernel] = field(default_factory=list)
    #: Further files by name.
    more: dict[str, bytes] = field(default_factory=dict)
