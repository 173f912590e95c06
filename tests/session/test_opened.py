"""What a dump keeps open for later commands."""

import os
from functools import partial
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import domains
from xenkdump_fast.limits import MAX_OPENED
from xenkdump_fast.session.opened import Opened
from xenkdump_fast.xen import console, console_ring, guests, host
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("opened") / "dump")


def test_a_file_is_opened_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    opened: Opened[str, str] = Opened()
    assert opened.get(str(path), path.read_text) == "1"
    assert opened.get(str(path), lambda: pytest.fail("opened again")) == "1"
    path.write_text("two")
    os.utime(path, ns=(0, 1))
    assert opened.get(str(path), path.read_text) == "two"


def test_errors_are_not_kept() -> None:
    opened: Opened[tuple[str | None, bool], str] = Opened()

    def fails() -> str:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        opened.get((None, False), fails)
    assert opened.get((None, False), lambda: "yes") == "yes"
    assert opened.get((None, True), lambda: "forced") == "forced"


def test_only_the_last_ones_are_kept() -> None:
    opened: Opened[str, int] = Opened()
    for i in range(MAX_OPENED + 1):
        opened.get(f"/nonexistent/{i}", partial(int, i))
        assert opened.get("/nonexistent/0", lambda: -1) == 0
    assert opened.get("/nonexistent/1", lambda: -1) == -1


def test_commands_share_a_hypervisor(
    synthetic: SyntheticDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second command searches for no kernel and infers no layout."""
    with xk.open(synthetic.vmcore) as dump:
        xen = dump.xen()
        assert dump.xen() is xen is dump.hypervisor
        first = list(domains.run(dump).text())
        warnings = list(xen.warnings)
        for module, name in ((guests, "recognise"), (host, "infer")):
            monkeypatch.setattr(module, name, lambda *_: pytest.fail("read again"))
        assert list(domains.run(dump).text()) == first
        assert xen.warnings == warnings


def test_the_console_is_searched_for_once(
    synthetic: SyntheticDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []

    def find(xen: host.XenHost) -> console_ring.Console:
        searches.append(xen)
        return console_ring.Console([], False, "a test")

    monkeypatch.setattr(console, "_find", find)
    with xk.open(synthetic.vmcore) as dump:
        assert console.read(dump.xen()) is console.read(dump.xen())
        assert searches == [dump.xen()]


def test_domains_share_an_image(synthetic: SyntheticDump) -> None:
    with xk.open(synthetic.vmcore) as dump:
        kernels = [dump.domain(number, synthetic.vmlinux).kernel for number in (0, 1)]
        assert kernels[0].image is kernels[1].image is dump.image(synthetic.vmlinux)
