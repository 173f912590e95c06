"""What a command prints of a result."""

import io
from types import ModuleType
from typing import Any

from xenkdump_fast.cli.output import write


def text(render: ModuleType, result: Any) -> str:
    """The text by its module of render/."""
    stream = io.StringIO()
    write(stream, render.lines(result))
    return stream.getvalue()
