"""``sample``: sizes, errors, and the dump of a large dom0."""

from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main


@pytest.mark.parametrize(
    ("options", "status", "problem"),
    [
        (["--memory", "600G"], 2, "ends at 512 GiB"),
        (["--memory", "99999999G"], 2, "ends at 512 GiB"),
        (["--memory", "99999999G", "--like", "2006-x86_64"], 2, "at most 8 GiB"),
        (["--memory", "99999999G", "--like", "2006"], 2, "at most 3 GiB"),
        (["--memory", "99999999G", "--like", "32on64"], 2, "at most 800 MiB"),
        (["--memory", "1M"], 2, "at least 64 MiB"),
        (["--like", "nosuch"], 2, "unknown kind"),
    ],
)
def test_errors(
    options: list[str],
    status: int,
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sample", str(tmp_path / "dump"), *options]) == status
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "dump").exists()


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["sample", str(tmp_path / "file" / "dump")]) == 74
    assert "Not a directory" in capsys.readouterr().err


def test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bytes every time, and no file of another dump is replaced."""
    written = {}
    for name in ("one", "two"):
        assert main(["sample", str(tmp_path / name), "--images"]) == 0
        paths = sorted((tmp_path / name / "images").iterdir())
        written[name] = {path.name: path.read_bytes() for path in paths}
    assert written["one"] == written["two"]
    assert {"System.map", "vmlinuz-lzo", "vmlinux.stripped", "vmlinux.debug"} <= set(written["one"])
    (tmp_path / "three" / "images").mkdir(parents=True)
    assert main(["sample", str(tmp_path / "three"), "--images"]) == 2
    assert "exists (--overwrite replaces it)" in capsys.readouterr().err


def test_half_a_terabyte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(tmp_path), "--memory", "512G"]) == 0
    dom0 = xk.open(tmp_path / "vmcore").domain(0, tmp_path / "vmlinux")
    tasks = dom0.kernel.tasks()
    assert len(tasks) > 85
    for source in ("linear", "cr3"):
        p2m = xk.open(tmp_path / "vmcore").domain(0, tmp_path / "vmlinux", p2m_source=source).p2m
        assert p2m.pages == 512 << 18
        assert p2m.entry((512 << 18) - 1) == p2m.entry(4 << 18) == ("invalid", None)
        assert p2m.entry(0)[0] == "frame"
    assert main(["check", str(tmp_path / "vmlinux"), str(tmp_path / "vmcore")]) == 0
    assert "ALL 3 SOURCES AGREE" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lime", "raw"])
def test_the_command_to_try(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An image of a Xen host's memory leads to no kernel: the message says so, and what to try."""
    arguments = ["sample", str(tmp_path / "dump"), "--format", name, "--compress", "gzip"]
    assert main([*arguments, "--memory", "64M"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    _, _, command = line.partition("Try: xkdump ")
    assert main(command.split()) == 0
    capsys.readouterr()
    options = command.split()[1:-1]
    files = [str(tmp_path / "dump" / "vmlinux"), command.split()[-1]]
    for words in (["bt", *files], ["bt", files[1]], ["domains", files[1]]):
        assert main([*words, *options]) == 1
        message = capsys.readouterr().err
        assert "Try: " in message
        assert "an ELF" in message
