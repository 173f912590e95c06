"""Terminal control sequences in the names of modules, functions and tasks."""

import json

import pytest

import xenkdump_fast as xk
from xenkdump_fast import cli
from xenkdump_fast.linux import modules
from xenkdump_forge import KINDS, SyntheticDump, write_dump
from xenkdump_forge.parts import Parts

#: A window title, C1, a right-to-left override and an isolate, a line break, and invalid UTF-8.
#: A task's name has 15 bytes.
ESCAPES = "\x1b]0;x\x07\n\u202e\u2066".encode()
COMMANDS = ("bt --all", "bt -a", "mod", "ps", "sys", "log")


def hostile(parts: Parts) -> None:
    """Every name of a module, of a module's function and of a task."""
    kernel = parts.kernels[0]
    for task in kernel.tasks:
        kernel.guest.write(task.view.at("comm"), ESCAPES.ljust(16, b"\0"))
    for module in kernel.modules:
        kernel.guest.write(module.view.at("name"), b"\x9b\xc2\x9b2J" + ESCAPES + b"\0")
        names = [function.name.encode() for function in module.text.functions.values()]
        memory = kernel.guest.read(module.base, module.size)
        for name in names:
            at = module.base + memory.index(b"\0" + name + b"\0") + 1
            kernel.guest.write(at, (ESCAPES + name)[: len(name)])


@pytest.fixture(scope="module", params=KINDS)
def dumps(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SyntheticDump, SyntheticDump]:
    folder = tmp_path_factory.mktemp("names")
    kind = request.param
    return write_dump(folder / "intact", kind), write_dump(folder / "hostile", kind, extra=hostile)


@pytest.mark.parametrize("command", COMMANDS)
def test_names(
    dumps: tuple[SyntheticDump, SyntheticDump], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for synthetic in dumps:
        assert cli.main([*command.split(), str(synthetic.vmlinux), str(synthetic.vmcore)]) == 0
        shown = capsys.readouterr()
        texts.append(shown.out.splitlines())
        assert all(c.isprintable() or c in "\n\t" for c in shown.out + shown.err)
        assert all(line.startswith("xkdump: ") for line in shown.err.splitlines())
    # No additional lines: line breaks in names are escaped.
    assert len(texts[0]) == len(texts[1])


@pytest.mark.parametrize("form", ["--text", "--markdown"])
def test_a_report(
    dumps: tuple[SyntheticDump, SyntheticDump], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal names of functions are one row in it, so that the numbers of lines differ."""
    _, synthetic = dumps
    assert cli.main(["report", form, str(synthetic.vmlinux), str(synthetic.vmcore)]) == 0
    assert all(c.isprintable() or c in "\n\t" for c in capsys.readouterr().out)


def test_a_module_s_frames(
    dumps: tuple[SyntheticDump, SyntheticDump], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every kind of dump has tasks that sleep in a module."""
    synthetic = dumps[1]
    files = [str(synthetic.vmlinux), str(synthetic.vmcore)]
    assert cli.main(["bt", "--all", *files]) == 0
    text = capsys.readouterr().out
    name = r"[\x9b\x9b2J\x1b]0;x\x07\n\u202e\u2066]"
    assert text.count(name) in (2, 4)
    assert cli.main(["bt", "--all", "--json", *files]) == 0
    document = capsys.readouterr().out
    assert document.isascii()
    modules = {
        frame.get("module") for task in json.loads(document)["tasks"] for frame in task["frames"]
    }
    assert modules == {None, "\\x9b\x9b2J" + ESCAPES.decode()}


def test_the_plan_s_modules(dumps: tuple[SyntheticDump, SyntheticDump]) -> None:
    synthetic = dumps[0]
    kernel = xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux)).kernel
    found = [
        (hex(module.address), module.name, hex(module.base), module.total, module.symbols)
        for module in modules.modules(kernel)
    ]
    planned = synthetic.plan["domains"][0]["modules"]
    assert found == [(m["module"], m["name"], m["base"], m["size"], True) for m in planned]
    assert len(found) >= 2
    unwinder = kernel.unwinder  # which loads their symbols
    assert unwinder is not None
    for module in modules.modules(kernel):
        symbol = kernel.code.lookup(module.base)
        assert symbol is not None
        assert symbol.module == module.name
