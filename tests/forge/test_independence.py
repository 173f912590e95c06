"""The generator shares no code with the reader, so that no error can be in both."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import xenkdump_forge

PACKAGE = Path(xenkdump_forge.__file__).parent
#: The packages that the generator may import: numpy makes hosts with a million tasks.
ALLOWED = {*sys.stdlib_module_names, "numpy"}


def imports(path: Path) -> Iterator[str]:
    """The absolute names of the modules that a module imports, at top level or in functions."""
    package = ("xenkdump_forge", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= len(package), f"{path}:{node.lineno}: import leaves the package"
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def test_no_module_imports_the_reader() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 40
    for path in modules:
        roots = {name.partition(".")[0] for name in imports(path)} - {"xenkdump_forge"}
        assert roots <= ALLOWED, path


def test_every_kind_is_written_without_the_reader(tmp_path: Path) -> None:
    """This also covers modules that are imported by a computed name."""
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
