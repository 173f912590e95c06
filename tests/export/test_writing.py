"""The file appears when it is complete, and nothing of it stays on errors."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.export import ExportError, Request, of_domain, write, writing
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("sample"), "modern")


def export(made: SyntheticDump, path: Path, *, force: bool = False) -> None:
    request = Request(str(path), force=force)
    with xk.open(made.vmcore) as dump:
        write(of_domain(dump.domain(0, made.vmlinux), request), request)


def test_a_file_that_appears_meanwhile_is_kept(made: SyntheticDump, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("precious")
    with pytest.raises(ExportError, match="File exists"):
        export(made, path)
    assert path.read_text() == "precious"
    export(made, path, force=True)
    assert path.stat().st_size > 1 << 20
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_leads_to_the_file_that_is_replaced(made: SyntheticDump, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").touch()
    export(made, tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").stat().st_size > 1 << 20


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_written(made: SyntheticDump, force: bool, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(made.vmcore)
    sources = [str(made.vmcore), str(made.vmlinux)]
    for path, problem in (
        (made.vmcore, "is a file that is read"),
        (made.vmlinux, "is a file that is read"),
        (link, "is a file that is read"),
        (tmp_path, "is a directory"),
        (Path("/dev/null"), "is not a regular file"),
    ):
        with pytest.raises(writing.ExistsError, match=problem):
            writing.check(str(path), sources, force=force)
    with pytest.raises(ExportError, match="the directory does not exist"):
        export(made, tmp_path / "absent" / "out", force=force)


def test_a_full_disk(made: SyntheticDump, tmp_path: Path) -> None:
    """The limit on the size of a file fails as a full disk does: in the middle."""
    command = [sys.executable, "-m", "xenkdump_fast", "export", str(made.vmlinux), str(made.vmcore)]
    command += ["--format", "kdump", "--compress", "none", "-o", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    # The pages are at the end.
    limit = (tmp_path / "out").stat().st_size - (1 << 20)
    (tmp_path / "out").unlink()

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        command,
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 74
    assert done.stderr.endswith(f"xkdump: cannot write {tmp_path / 'out'}: File too large\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals(made: SyntheticDump, number: signal.Signals, status: int, tmp_path: Path) -> None:
    code = """if True:
        import sys, time
        from xenkdump_fast import cli
        from xenkdump_fast.export import writing
        real = writing.export
        def slow(*arguments):
            # The file is there, and the export goes on until it is stopped.
            report = real(*arguments)
            print("ready", flush=True)
            time.sleep(600)
            return report
        writing.export = slow
        sys.exit(cli.main(sys.argv[1:]))
    """
    command = ["export", str(made.vmlinux), str(made.vmcore), "-o", str(tmp_path / "out")]
    child = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")]
    child.send_signal(number)
    child.stdout.close()
    assert child.wait(30) == status
    assert os.listdir(tmp_path) == []


def test_the_handlers_of_signals_are_restored(made: SyntheticDump, tmp_path: Path) -> None:
    before: list[Callable[..., object] | int | None] = [
        signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)
    ]
    export(made, tmp_path / "out")
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert after == before
