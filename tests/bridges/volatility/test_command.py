"""The command ``volatility``, on synthetic dumps."""

import importlib.util
import sys
from pathlib import Path

import pytest

from xenkdump_fast import cli
from xenkdump_fast.bridges import MissingPackageError
from xenkdump_fast.bridges.volatility import runner
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("dump"), "modern")


def test_a_missing_package_is_named(
    dump: SyntheticDump, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError):
        runner.check()
    assert cli.main(["volatility", str(dump.vmlinux), str(dump.vmcore), "linux.pslist"]) == 3
    assert "pip install 'xenkdump_fast[volatility]'" in capsys.readouterr().err


def test_a_plugin_runs(
    dump: SyntheticDump,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("volatility3", reason="pip install 'xenkdump_fast[volatility]'")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    argv = list(sys.argv)
    cache = tmp_path / "cache"
    words = ["--cache-dir", str(cache), str(dump.vmlinux), str(dump.vmcore)]
    # Synthetic kernels lack most of what volatility3's class of kernels wants.
    status = 0
    try:
        status = cli.main(["volatility", *words, "--", "-q", "frameworkinfo.FrameworkInfo"])
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 0
    assert "Automagic" in capsys.readouterr().out
    assert sys.argv == argv
    assert len(list(cache.glob("isf-*.json"))) == 1
    assert not list(home.rglob("*"))
