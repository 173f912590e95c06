"""The JSON object that every command's ``--json`` prints."""

import json
from typing import Any

#: The version of the schema (docs/json.md): goes up when a field changes its meaning or goes away.
SCHEMA = 1


def document(command: str, dump: str | None, body: dict[str, Any], warnings: list[str]) -> str:
    """One object: what it is, then the command's own part."""
    whole: dict[str, Any] = {"schema": SCHEMA, "command": command, "dump": dump, **body}
    if warnings:
        whole["warnings"] = warnings
    return json.dumps(whole, indent=1)
