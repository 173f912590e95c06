"""Kernels without a vmlinux: symbols, types and unwind tables from the memory of the dump."""

import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest

import xenkdump_fast as xk
import xenkdump_forge
from xenkdump_fast import AbsentError
from xenkdump_fast._native import Image
from xenkdump_fast.cli import main
from xenkdump_fast.linux.boot.locate import Location
from xenkdump_fast.linux.system import Linux
from xenkdump_fast.session.domain import Domain
from xenkdump_fast.session.platform import Platform


@pytest.fixture(scope="module", params=["modern", "32on64", "2006", "2006-pae", "2006-x86_64"])
def files(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Sequence[str]:
    """A vmlinux and its dump."""
    made = xenkdump_forge.write_dump(tmp_path_factory.mktemp("dump"), request.param)
    return [str(made.vmlinux), str(made.vmcore)]


def output(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert main(arguments) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_backtraces(files: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same tasks, and the same frames as far as the same method finds them."""
    expected = output(["bt", "--all", "--json", *files], capsys)["tasks"]
    found = output(["bt", "--all", "--json", files[1]], capsys)["tasks"]
    assert [task["task"] for task in found] == [task["task"] for task in expected]
    pairs = [
        (mine, theirs)
        for task, other in zip(found, expected, strict=True)
        for mine, theirs in zip(task["frames"], other["frames"], strict=False)
    ]
    assert pairs
    same = [mine["pc"] == theirs["pc"] for mine, theirs in pairs]
    assert sum(same) >= 0.99 * len(same)
    for mine, theirs in pairs:
        if mine["how"] == theirs["how"] == "orc":
            assert mine == theirs


def test_sys_says_where_symbols_are_from(
    files: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = output(["sys", "--json", files[1]], capsys)
    expected = output(["sys", "--json", *files], capsys)
    assert found["kernel"].startswith("(symbols")
    assert found["kernel"].endswith("from memory)")
    assert (found["release"], found["tasks"]) == (expected["release"], expected["tasks"])


def test_a_kernel_from_memory(files: Sequence[str]) -> None:
    domain = xk.open(files[1]).domain(0)
    kernel = domain.kernel
    assert kernel.image.is_memory
    with_file = xk.open(files[1]).domain(0, files[0]).kernel
    for name in ("linux_banner", "init_task", "_stext", "_end"):
        assert kernel.symbols[name] == with_file.symbols[name]
    assert kernel.release == with_file.release
    assert domain.found_vmlinux is False


@pytest.mark.parametrize("place", [".build-id", "vmlinux", "other build"])
def test_a_vmlinux_with_the_same_build_id(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = xenkdump_forge.write_dump(tmp_path / "dump", "modern")
    build_id = xk.open(made.vmcore).domain(0).kernel.image.build_id
    assert build_id is not None
    folder = tmp_path / "debug"
    path = folder / "vmlinux"
    if place == ".build-id":
        path = folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    path.parent.mkdir(parents=True)
    if place == "other build":
        other = xenkdump_forge.write_dump(tmp_path / "other", "32on64")
        shutil.copy(other.vmlinux, path)
    else:
        shutil.copy(made.vmlinux, path)
    monkeypatch.setenv("XKDUMP_DEBUG_PATH", str(folder))
    found = output(["sys", "--json", str(made.vmcore)], capsys)["kernel"]
    if place == "other build":
        assert found == "(symbols and types from memory)"
    else:
        assert found == f"{path} (found by its build id)"


def test_no_table_of_symbols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = xenkdump_forge.write_dump(tmp_path, "modern")
    path = Path(made.vmcore)
    data = path.read_bytes()
    tokens = b"0\0001\0002\0003\0004\0"
    assert data.count(tokens) >= 1
    path.write_bytes(data.replace(tokens, bytes(len(tokens))))
    with pytest.raises(AbsentError, match="no kernel was found in memory"):
        _ = xk.open(path).domain(0).kernel
    assert main(["bt", str(path)]) == 1
    assert "no table of kallsyms tokens" in capsys.readouterr().err


def facts(domain: xk.Domain) -> list[str]:
    """What a domain says of its memory; the reprs have the root, and the pages of the P2M."""
    return [
        repr(domain.virtual),
        repr(domain.physical),
        str(domain.has_p2m),
        repr(domain.p2m) if domain.has_p2m else "",
        str(domain.found_vmlinux),
    ]


@pytest.mark.parametrize("name", ["virtual", "physical", "p2m", "has_p2m", "kernel"])
def test_the_order_of_use_does_not_matter(files: Sequence[str], name: str) -> None:
    """The root and the P2M are those of the kernel, whatever is asked for first."""
    with xk.open(files[1]) as dump:
        first, other = dump.domain(), dump.domain()
        kernel = other.kernel
        before = getattr(first, name, None)  # a bare machine has no P2M
        assert facts(first) == facts(other)
        if name in ("virtual", "physical"):
            assert repr(before) == repr(getattr(first, name))
        assert repr(first.virtual) == repr(kernel.virtual)
        banner = first.virtual.cstring(first.kernel.symbols["linux_banner"], 256)
        assert banner.startswith(b"Linux version ")


def test_a_kernel_is_searched_for_once(
    files: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a kernel, what depends on it says why, and the same each time."""
    searches = []

    def images(platform: Platform) -> Iterator[Image]:
        searches.append(platform)
        raise AbsentError("no kernel here")

    for kind in (Platform, *Platform.__subclasses__()):
        monkeypatch.setattr(kind, "images", images)
    with xk.open(files[1]) as dump:
        domain = dump.domain()
        before = [domain.has_p2m, *texts(domain)]
        assert [domain.has_p2m, *texts(domain)] == before
    assert len(searches) == 1
    assert "no kernel here" in str(before[-1])


@pytest.mark.parametrize("error", [AbsentError("damaged"), KeyboardInterrupt()], ids=["", "Ctrl-C"])
def test_a_search_that_fails_changes_nothing(
    error: BaseException, files: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even late: the P2M and the root of an image that is not used are not Xen's."""
    located = []

    def fail(domain: Domain, image: Image, location: Location) -> Linux:
        located.append(domain._location is location)
        raise error

    monkeypatch.setattr(Domain, "_linux", fail)
    with xk.open(files[1]) as dump:
        domain = dump.domain()
        domain._warnings.append("by Xen's records")
        before = domain._p2m, domain._location, domain.warnings
        with pytest.raises(type(error)):
            _ = domain.kernel
        assert (domain._p2m, domain._location, domain.warnings) == before
    assert located
    assert all(located)


@pytest.mark.parametrize("name", ["virtual", "physical", "p2m", "has_p2m", "kernel"])
def test_threads_share_a_search(
    name: str, files: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces the P2M as it goes on: another search would find that of this one."""
    both = Barrier(2)
    original = Domain._find_kernel

    def find(domain: Domain) -> Linux:
        # Another search would come here at the same time. A single one does not wait long.
        with suppress(BrokenBarrierError):
            both.wait(0.2)
            raise AssertionError("two searches")
        return original(domain)

    monkeypatch.setattr(Domain, "_find_kernel", find)
    with xk.open(files[1]) as dump, ThreadPoolExecutor(4) as pool:
        domain = dump.domain()
        found = list(pool.map(lambda _: getattr(domain, name, None), range(4)))
    assert all(one is found[0] for one in found[1:])


def texts(domain: xk.Domain) -> list[str]:
    """The memory of a domain and its kernel, or why there is none."""
    found = []
    for name in ("physical", "virtual", "kernel"):
        try:
            found.append(repr(getattr(domain, name)))
        except AbsentError as error:
            found.append(str(error))
    return found
