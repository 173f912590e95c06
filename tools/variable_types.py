"""Prints the types of global variables by the DWARF of a vmlinux.

Usage: ``python -m tools.variable_types VMLINUX [NAME ...]``. The names are by default those of the
table in ``xenkdump_fast/linux/variables.py``; a line that differs from the table ends in its type
there. ``llvm-dwarfdump`` reads the DWARF.
"""

import argparse
import re
import subprocess
from collections import Counter, defaultdict

from xenkdump_fast._native import Image, Types
from xenkdump_fast.linux.variables import TYPES

NAME = re.compile(r'DW_AT_name\s+\("([^"]+)"\)')
TYPE = re.compile(r'DW_AT_type\s+\(0x[0-9a-f]+ "([^"]*)"\)')


def described(vmlinux: str, names: list[str]) -> dict[str, str]:
    """The types by the names of the variables, as DWARF has them most often."""
    options = [f"--name={name}" for name in names]
    # It exits with 1 if a section that is not needed here was stripped.
    command = ["llvm-dwarfdump", *options, vmlinux]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in text.split("\n\n"):
        name, kind = NAME.search(entry), TYPE.search(entry)
        if "DW_TAG_variable" in entry and name and kind:
            found[name[1]][kind[1].replace("::", "")] += 1
    return {name: types.most_common(1)[0][0] for name, types in found.items()}


def spelled(types: Types, text: str) -> str:
    """A type in C syntax: with ``struct``, and arrays without a length."""
    text = re.sub(r"\[.*\]$", " []", text).replace("* []", "*[]")
    text = text.replace("const const", "const").replace("long unsigned int", "unsigned long")
    words = [word for word in re.findall(r"[A-Za-z_]\w*", text) if word != "const"]
    for tag in ("struct", "union", "enum"):
        if words and words[0] not in ("unsigned", "char", "int") and f"{tag} {words[0]}" in types:
            return re.sub(rf"\b{words[0]}\b", f"{tag} {words[0]}", text, count=1)
    return text


def main() -> None:
    """Prints a line per variable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vmlinux")
    parser.add_argument("names", nargs="*", default=list(TYPES))
    args = parser.parse_args()
    types = Image(args.vmlinux).types()
    for name, text in described(args.vmlinux, args.names).items():
        found = spelled(types, text)
        known = {row.type for row in TYPES.get(name, ())}
        differs = f"  (table: {', '.join(sorted(known)) or 'none'})" if found not in known else ""
        print(f"{name}: {found}{differs}")


if __name__ == "__main__":
    main()
