"""Writes the table of limits in docs/trust.md from limits.py and limits.rs.

Usage: ``python tools/limits_table.py [--check]``. A limit is a constant ``MAX_*`` with a comment
that says what it limits and why; a comment line ``# == Name ==`` (``// == Name ==`` in Rust) starts
a section.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    ROOT / "rust/xenkdump/src/limits.rs",
    ROOT / "python/xenkdump_fast/limits.py",
)
PAGE = ROOT / "docs/trust.md"
BEGIN, END = "<!-- limits: begin -->\n", "<!-- limits: end -->\n"

_SECTION = re.compile(r"^(?:#|//) == (?P<name>.+) ==$")
_COMMENT = re.compile(r"^(?:#:|///) ?(?P<text>.*)$")
_CONSTANT = re.compile(
    r"^(?:pub(?:\(crate\))? const )?(?P<name>MAX_[A-Z0-9_]+)(?:: [\w<>]+)? = (?P<value>[^;#]+);?"
)


class Limit(NamedTuple):
    """One row of the table."""

    section: str
    name: str
    value: str
    comment: str


def limits(*paths: Path) -> Iterator[Limit]:
    """The limits in files; SystemExit for one without a comment, or with the name of another."""
    names = set[str]()
    for path in paths:
        for limit in _limits(path):
            if limit.name in names:
                sys.exit(f"{path}: there are two limits {limit.name}")
            names.add(limit.name)
            yield limit


def _limits(path: Path) -> Iterator[Limit]:
    section, comment = "", list[str]()
    for line in path.read_text().splitlines():
        if found := _SECTION.match(line):
            section = found["name"]
        elif found := _COMMENT.match(line):
            comment.append(found["text"])
            continue
        elif found := _CONSTANT.match(line):
            if not comment:
                sys.exit(f"{path}: {found['name']} has no comment")
            yield Limit(section, found["name"], found["value"].strip(), " ".join(comment))
        comment = []


def table() -> str:
    """The table as Markdown, with sections in the order of the files."""
    rows: dict[str, list[Limit]] = {}
    for limit in limits(*SOURCES):
        rows.setdefault(limit.section, []).append(limit)
    lines = ["| limit | value | what it limits, and why |", "|---|---|---|"]
    for section, found in rows.items():
        lines.append(f"| **{section}** | | |")
        lines += (f"| `{row.name}` | `{row.value}` | {row.comment} |" for row in found)
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Writes the table, or checks with ``--check`` that it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the table is not current")
    args = parser.parse_args()
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    current = f"{before}{BEGIN}{table()}{END}{after}"
    if args.check and current != text:
        sys.exit(f"{PAGE}: the table of limits is not current; run python {sys.argv[0]}")
    if not args.check:
        PAGE.write_text(current)


if __name__ == "__main__":
    main()
