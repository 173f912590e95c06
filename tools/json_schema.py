"""Writes docs/json.schema.json from the TypedDicts of the commands.

Usage: ``python -m tools.json_schema [--check]``. The TypedDict of a command's own members is
``JSON`` in its module, for ``--hypervisor`` ``HYPERVISOR_JSON``.
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from xenkdump_fast.commands import COMMANDS
from xenkdump_fast.output.document import SCHEMA
from xenkdump_fast.output.json_types import Count, Hex, HexBytes

FILE = Path(__file__).resolve().parents[1] / "docs" / "json.schema.json"
#: Schemas of types that msgspec does not support: the classes of json_types.py.
CUSTOM: dict[type, dict[str, Any]] = {
    Count: {"type": "integer", "minimum": 0},
    Hex: {"type": "string", "pattern": "^0x[0-9a-f]+$"},
    HexBytes: {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
}


def types() -> dict[str, type]:
    """The TypedDict of each command, by the name that the command has in JSON."""
    found: dict[str, type] = {}
    for command in COMMANDS.values():
        if command.interactive:
            continue  # prints no document
        module = import_module(f"xenkdump_fast.commands.{command.module}")
        found[command.name] = module.JSON
        if command.hypervisor is not None:
            found[f"{command.name} --hypervisor"] = module.HYPERVISOR_JSON
    return found


def schema() -> dict[str, Any]:
    """The schema of everything that ``--json`` prints."""
    named = types()
    _, definitions = msgspec.json.schema_components(
        named.values(), schema_hook=CUSTOM.__getitem__, ref_template="{name}"
    )
    names = {definition: _short(definition) for definition in definitions}
    definitions = {names[name]: _renamed(part, names) for name, part in definitions.items()}
    for command in COMMANDS.values():
        if command.all_domains:
            definitions[f"{command.name}-domain-all"] = _of_all_domains(command.name)
            named[f"{command.name} --domain all"] = dict
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Output of xkdump --json",
        "$comment": "json.md describes the fields. Fields may be added; these keep their meaning.",
        "type": "object",
        "required": ["schema", "command", "dump"],
        "properties": {
            "schema": {"const": SCHEMA},
            "command": {"enum": list(named)},
            "dump": {"type": ["string", "null"]},
            **COMMON,
        },
        "dependentRequired": {"error": ["status"], "status": ["error"]},
        "allOf": [
            {
                "if": {
                    "properties": {"command": {"const": name}},
                    "not": {"required": ["error"]},
                },
                "then": {"$ref": f"#/$defs/{_definition(name, kind)}"},
            }
            for name, kind in named.items()
        ],
        "$defs": definitions,
    }


#: What the object of a command may have besides its own members; so may that of a domain.
COMMON: dict[str, Any] = {
    "warnings": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    "failure": {"type": "string"},
    "error": {"type": "string"},
    "status": {"type": "integer", "minimum": 1},
}


def _of_all_domains(name: str) -> dict[str, Any]:
    """The definition of a command's own members with ``--domain all``."""
    domain = {
        "type": "object",
        "required": ["domain"],
        "properties": {"domain": CUSTOM[Count], **COMMON, "skipped": {"type": "string"}},
        "dependentRequired": {"error": ["status"], "status": ["error"]},
        "anyOf": [
            {"$ref": f"#/$defs/{name}"},
            {"required": ["error"]},
            {"required": ["skipped"]},
        ],
    }
    return {
        "type": "object",
        "required": ["domains"],
        "properties": {"domains": {"type": "array", "items": domain}},
    }


def _definition(name: str, kind: type) -> str:
    """The name of the definition of what a command prints; several may print the same."""
    if kind is dict:  # of all domains
        return name.replace(" --", "-").replace(" ", "-")
    return _short(f"{kind.__module__}.{kind.__name__}")


def _short(definition: str) -> str:
    """A definition's name without its module; ``bt`` and ``bt-hypervisor`` for whole commands."""
    *_, module, name = f".{definition}".split(".")
    whole = {"JSON": module, "HYPERVISOR_JSON": f"{module}-hypervisor"}
    return whole.get(name, f"{module}.{name}" if module else name)


def _renamed(part: Any, names: dict[str, str]) -> Any:
    """The same part of the schema, with references to the new names and without titles."""
    if isinstance(part, list):
        return [_renamed(item, names) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: f"#/$defs/{names[value]}" if key == "$ref" else _renamed(value, names)
        for key, value in part.items()
        if key != "title" or not isinstance(value, str)
    }


def main() -> None:
    """Writes the schema, or checks with ``--check`` that it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the file is not current")
    args = parser.parse_args()
    text = json.dumps(schema(), indent=1) + "\n"
    if not args.check:
        FILE.write_text(text)
    elif FILE.read_text() != text:
        sys.exit(f"{FILE} is not current; run python -m tools.json_schema")


if __name__ == "__main__":
    main()
