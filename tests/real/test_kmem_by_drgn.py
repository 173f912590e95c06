"""What drgn prints of ``kmem``: the same as by ``crash COMMAND``."""

from collections.abc import Callable

import pytest

from xenkdump_fast.cli import main

pytestmark = pytest.mark.real

COMMANDS = ["kmem -z", "kmem -s"]


@pytest.mark.parametrize("command", COMMANDS)
def test_as_by_crash(
    command: str, dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("drgn", reason="drgn is not installed")
    name, *arguments = command.split()
    vmcore = dump_file("xen417-three-domains/vmcore")
    assert main([name, vmcore, "--domain", "1", "--", *arguments]) == 0
    out, err = capsys.readouterr()
    assert f"{name}: printed by drgn's command of this name" in err
    assert main(["crash", vmcore, "--domain", "1", command]) == 0
    assert capsys.readouterr().out == out
    assert out


def test_wrong_arguments(
    dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("drgn", reason="drgn is not installed")
    vmcore = dump_file("xen417-three-domains/vmcore")
    assert main(["kmem", vmcore, "--", "--no-such-option"]) == 2
    assert "no-such-option" in capsys.readouterr().err
