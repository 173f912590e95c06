"""The generator shares no code with the reader: a fault in one must show in the other's tests."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import xenkdump_forge

PACKAGE = Path(xenkdump_forge.__file__).parent
#: What the generator may import: the standard library and itself.
ALLOWED = sys.stdlib_module_names | {"xenkdump_forge"}


def imported(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = len(path.relative_to(PACKAGE).parts)
            assert node.level <= inside, f"{path}:{node.lineno}: import leaves the package"
            yield "xenkdump_forge" if node.level else (node.module or "").partition(".")[0]


def test_no_module_imports_the_reader() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 40
    for path in modules:
        assert set(imported(path)) <= ALLOWED, path


def test_every_kind_is_written_without_the_reader(tmp_path: Path) -> None:
    """Imports by name, which no search of the source finds, included."""
    program = (
        "import sys, xenkdump_forge\n"
        "sys.modules['xenkdump_fast'] = None\n"
        "for kind in xenkdump_forge.KINDS:\n"
        "    xenkdump_forge.build(kind)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
