"""``ipcs`` against drgn and crash."""

from collections.abc import Callable

import pytest

from xenkdump_fast.cli import main
from xenkdump_fast.commands import ipcs
from xenkdump_fast.linux import namespaces

from .reference_lines import MORE, by_crash, by_drgn, every_crash, every_domain, fields, opened

pytestmark = pytest.mark.real
#: What drgn prints as the status.
STATUS = {"SHM_LOCKED": ["locked"], "SHM_DEST": ["dest"], "SHM_DEST|SHM_LOCKED": ["dest", "locked"]}


def lines(found: ipcs.Objects) -> list[list[str]]:
    """The fields of the text."""
    return fields(list(found.text()))


@every_domain
def test_as_drgn(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    kernel = domain.kernel
    by_namespace = {}
    for task in kernel.tasks():
        if not task.idle and not task.exit_state:
            by_namespace[namespaces.of_task(kernel, task.address, "ipc_ns")] = str(task.pid)
    for pid in by_namespace.values():
        expected = by_drgn(domain, f"ipcs -n {pid}")
        expected = [[*line[:-1], *STATUS.get(line[-1], line[-1:])] for line in expected]
        found = ipcs.run(domain, ipcs.Options(namespace=pid))
        assert lines(found) == expected
    found = ipcs.run(domain)
    assert found.semaphores or found.queues or name in MORE
    assert domain.warnings == []


@every_domain
def test_operands(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    domain = opened(dump_file, name, number)
    found = ipcs.run(domain)
    for one in found.semaphores or ():
        (same,) = ipcs.run(domain, ipcs.Options([f"{one.address:x}"])).semaphores or ()
        assert same == one
        same_id = ipcs.run(domain, ipcs.Options([str(one.permissions.id)]))
        assert same_id.semaphores == [one]
        assert {each.permissions.id for each in same_id.queues or ()} <= {one.permissions.id}


@every_domain
def test_pages(name: str, number: int, dump_file: Callable[[str], str]) -> None:
    """As drgn reads them."""
    pytest.importorskip("drgn", reason="drgn is not installed")
    from drgn import Object, container_of

    from xenkdump_fast import drgn_program

    domain = opened(dump_file, name, number)
    program = drgn_program(domain)
    found = ipcs.run(domain, ipcs.Options(pages=True))
    assert (found.semaphores, found.queues) == (None, None)
    for one in found.segments or ():
        assert one.pages is not None
        shm = Object(program, "struct shmid_kernel *", one.address)
        inode = shm.shm_file.f_inode
        assert one.pages.inode == inode.value_()
        assert one.pages.resident == inode.i_mapping.nrpages.value_()
        own = container_of(inode, "struct shmem_inode_info", "vfs_inode")
        assert one.pages.swapped == own.swapped.value_()


@every_crash
def test_as_crash(
    name: str, dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected = by_crash(dump_file, tmp_path_factory.getbasetemp(), name)
    assert lines(ipcs.run(opened(dump_file, name, 0))) == expected["ipcs"]


def test_what_does_not_exist(
    dump_file: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    vmcore = dump_file("bare-x86_64/vmcore")
    assert main(["ipcs", vmcore, "77"]) == 1
    assert "no IPC object 77" in capsys.readouterr().err
    assert main(["ipcs", vmcore, "-s", "0", "77"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 2
    assert "no IPC object 77" in err
