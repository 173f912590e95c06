"""What a kind hands over to be written."""

from __future__ import annotations

from dataclasses import dataclass, field

from .core import Core
from .plan import Json


@dataclass
class Parts:
    """The content of a sample's files."""

    vmlinux: bytes
    core: Core
    plan: Json
    #: Further files by name.
    more: dict[str, bytes] = field(default_factory=dict)
