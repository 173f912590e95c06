"""Wrong arguments: one line that says what is wrong, and exit status 2."""

import pytest

from xenkdump_fast.cli import main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("", "required: COMMAND"),
        ("nonsense", "invalid choice: 'nonsense'"),
        ("bt", "required: VMLINUX, VMCORE\n"),
        ("ps", "required: VMLINUX, VMCORE\n"),
        ("vtop vmlinux vmcore", "required: ADDRESS|SYMBOL"),
        (
            "bt vmlinux vmcore --unwind nope",
            "'nope'; available: orc, cfi, fp, scan",
        ),
        ("bt vmlinux vmcore --unwind orc,", "no unwind method ''"),
        ("bt --hypervisor vmcore --unwind orc", "'orc'; available: cfi, fp, scan"),
        ("bt -a --all vmlinux vmcore", "not allowed with"),
        ("bt --domain x vmlinux vmcore", "invalid int value: 'x'"),
        ("sys --p2m-source foo vmlinux vmcore", "no P2M source 'foo'"),
        ("log vmlinux vmcore more", "unrecognized arguments: more"),
    ],
)
def test_wrong_usage(arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments.split())
    except SystemExit as error:
        status = int(error.code or 0)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert complaint in err


def test_a_closed_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main(["notes", "/nonexistent"]) == 3


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("xkdump ")
