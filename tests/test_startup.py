"""What a short command imports: that is most of its time. Nothing here measures time."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import xenkdump_fast
from xenkdump_forge import SyntheticDump, write_dump

PACKAGE = Path(xenkdump_fast.__file__).parent
#: Prints the modules that a command has imported.
CODE = """
import sys
from xenkdump_fast.cli import main
status = main(sys.argv[1:])
print("modules:", status, *sorted(sys.modules))
"""
#: Modules that cost milliseconds, each of which only some commands need.
EXPENSIVE = {
    "bz2",
    "ctypes",
    "dataclasses",
    "hashlib",
    "heapq",
    "inspect",
    "importlib.metadata",
    "json.decoder",
    "locale",
    "logging",
    "lzma",
    "numpy",
    "shutil",
    "subprocess",
    "tempfile",
    "threading",
    "typing",
    "uuid",
}
#: The most modules of this package that ``bt -a`` may import.
MOST = 85


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    """A dump of a Xen host, whose dom0 needs all that a machine without Xen does, and more."""
    return write_dump(tmp_path_factory.mktemp("startup") / "dump")


def imported(*words: object) -> set[str]:
    """The modules that a command imports."""
    command = [sys.executable, "-c", CODE, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    _, status, *modules = done.stdout.splitlines()[-1].split()
    assert status == "0", done.stderr
    return set(modules)


def test_a_backtrace_imports_little(dump: SyntheticDump) -> None:
    found = imported("bt", "-a", dump.vmlinux, dump.vmcore)
    assert found & EXPENSIVE == set()
    assert "contextlib" not in found
    own = {name for name in found if name.split(".")[0] == "xenkdump_fast"}
    assert "xenkdump_fast.commands.bt" in own
    assert len(own) <= MOST, sorted(own)


def test_a_signature_imports_little(dump: SyntheticDump) -> None:
    found = imported("signature", dump.vmlinux, dump.vmcore)
    assert found & EXPENSIVE <= {"hashlib"}


@pytest.mark.parametrize("command", ["sys", "ps", "mod"])
def test_other_short_commands_import_little(command: str, dump: SyntheticDump) -> None:
    assert imported(command, dump.vmlinux, dump.vmcore) & EXPENSIVE == set()


def test_the_version_needs_nothing_of_a_dump() -> None:
    found = imported("--version")
    assert found & EXPENSIVE == set()
    assert "xenkdump_fast.session" not in found


def test_a_report_imports_no_framework(dump: SyntheticDump, tmp_path: Path) -> None:
    """It needs numpy, and what numpy imports."""
    found = imported("report", "-o", tmp_path / "report.html", dump.vmlinux, dump.vmcore)
    assert "xenkdump_fast.report.html.page" in found
    numpy = [sys.executable, "-c", "import numpy, sys; print(*sys.modules)"]
    needed = subprocess.run(numpy, capture_output=True, text=True, check=True).stdout.split()
    assert (found & EXPENSIVE) - set(needed) <= {"hashlib"}
    assert found.isdisjoint({"jinja2", "drawsvg", "email", "numpy.ma", "pathlib", "urllib.request"})


def test_a_list_of_domains_does_without_numpy(dump: SyntheticDump) -> None:
    found = imported("domains", dump.vmcore)
    assert "xenkdump_fast.xen.frame_table" in found
    assert "numpy" not in found


@pytest.mark.parametrize(
    "words",
    [("bt", "-a"), ("signature",), ("report", "-o", "report.html")],
    ids=lambda words: words[0],
)
def test_no_pattern_is_compiled_by_an_import(
    dump: SyntheticDump, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Text is a pattern too: ``re`` compiles and keeps it when it is used."""
    words = tuple(str(tmp_path / word) if word.endswith(".html") else word for word in words)
    for name in imported(*words, dump.vmlinux, dump.vmcore):
        if not name.startswith("xenkdump_fast"):
            continue
        path = PACKAGE.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for statement in ast.parse(path.read_text()).body if path.exists() else ():
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                assert "re.compile(" not in ast.unparse(statement), name


def test_the_package_imports_what_is_used() -> None:
    code = "import sys, xenkdump_fast; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith("xenkdump_fast")] == ["xenkdump_fast"]


def test_every_public_name_can_be_imported() -> None:
    names = set(xenkdump_fast.__all__)
    assert names <= set(dir(xenkdump_fast))
    for name in names:
        assert getattr(xenkdump_fast, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = xenkdump_fast.nonsense  # type: ignore[attr-defined]


#: Ctrl-C while the modules of the command line are imported.
INTERRUPTED = """
import sys
from xenkdump_fast.process import run

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "xenkdump_fast.cli":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
run()
"""


def test_an_interrupt_at_the_start_is_quiet() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


class TestProcess:
    """The process ends as any other, although its objects are not freed."""

    def run(self, *words: object, stdout: int = subprocess.PIPE) -> "tuple[int, str, str]":
        command = [sys.executable, "-m", "xenkdump_fast", *map(str, words)]
        done = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def test_output_is_complete(self, dump: SyntheticDump) -> None:
        status, out, error = self.run("bt", "--all", "--json", dump.vmlinux, dump.vmcore)
        assert (status, error) == (0, "")
        assert json.loads(out)["command"] == "bt"

    def test_statuses(self, dump: SyntheticDump) -> None:
        assert self.run("bt", dump.vmlinux, dump.vmcore, "no-such-task")[0] == 1
        assert self.run("bt", "--nonsense")[0] == 2
        status, out, error = self.run("notes", dump.vmcore.parent / "absent")
        assert (status, out) == (3, "")
        assert error.startswith("xkdump: ")
        assert self.run("--version")[0] == 0

    def test_what_was_registered_for_the_end_runs(self) -> None:
        code = (
            "import sys; from xenkdump_fast import cli, process\n"
            "def main():\n"
            "    import atexit; atexit.register(print, 'end'); print('command'); return 5\n"
            "cli.main = main; process.run()"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split()) == (5, ["command", "end"])
