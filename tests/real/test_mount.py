"""``mount`` against drgn, crash, and the log of the machine."""

from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_fast.cli import main
from xenkdump_fast.commands import mount
from xenkdump_fast.linux import namespaces

from .. import rendering
from .reference_lines import by_crash, by_drgn, every_crash, every_domain, fields, opened

pytestmark = pytest.mark.real


def lines(found: mount.Mounts) -> list[list[str]]:
    """The fields of the text."""
    return fields(list(found.text()))


@every_domain
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    kernel = domain.kernel
    by_namespace = {}
    for task in kernel.tasks():
        if not task.idle and not task.exit_state:
            by_namespace[namespaces.of_task(kernel, task.address, "mnt_ns")] = str(task.pid)
    assert len(by_namespace) >= 2  # kdevtmpfs has one of its own
    for pid in by_namespace.values():
        found = lines(mount.run(domain, mount.Options(namespace=pid)))
        assert found == by_drgn(domain, f"mount -n {pid}")
    whole: Any = rendering.json(mount.run(domain))
    assert {"/", "/proc", "/dev"} <= {one["path"] for one in whole["mounts"]}
    assert domain.warnings == []


@every_crash
def test_as_crash(
    name: str, dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = by_crash(dump_file, tmp_path_factory.getbasetemp(), name)
    domain = opened(dump_file, name, 0)
    assert lines(mount.run(domain)) == expected["mount"]
    assert lines(mount.run(domain, mount.Options(namespace="1"))) == expected["mount -n 1"]


@every_domain
def test_operands(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    """Each mount is found by all that identifies it."""
    domain = opened(dump_file, name, number)
    kernel = domain.kernel
    found = mount.run(domain).mounts
    for one in found:
        block = kernel.read(one.root, "dentry.d_sb")
        assert block == one.super_block
        inode = kernel.read(one.root, "dentry.d_inode")
        for value in (one.super_block, one.root, inode):
            (*same,) = mount.run(domain, mount.Options([f"{value:x}"])).mounts
            assert same == [other for other in found if other.super_block == one.super_block]
        for text in (f"{one.address:x}", f"{one.vfsmount:x}"):
            assert mount.run(domain, mount.Options([text])).mounts == [one]
        assert one in mount.run(domain, mount.Options([one.path])).mounts
        assert one in mount.run(domain, mount.Options([one.device])).mounts


def test_open_files(dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    vmcore = dump_file("bare-x86_64/vmcore")
    assert main(["mount", vmcore, "-f", "-i", "/dev"]) == 0
    out, _ = capsys.readouterr()
    assert "OPEN FILES:" in out
    assert "CHR  /dev/null" in out
    assert out.count("/dev/null") == 1
    assert "/proc" not in out
    assert out.endswith("DIRTY INODES\n(none)\n")


def test_what_is_not_mounted(
    dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    vmcore = dump_file("bare-x86_64/vmcore")
    assert main(["mount", vmcore, "/nowhere"]) == 1
    assert "/nowhere is not mounted" in capsys.readouterr().err
    assert main(["mount", vmcore, "/proc", "/nowhere"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 2
    assert "/nowhere is not mounted" in err
    # A kernel thread that has exited, and no task.
    assert main(["mount", vmcore, "-n", "99999"]) == 1
    assert "has no task 99999" in capsys.readouterr().err
