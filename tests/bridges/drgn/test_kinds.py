"""Domains of other kinds of synthetic dumps, and damaged ones."""

from pathlib import Path

import pytest
from drgn import FaultError

import xenkdump_fast as xk
from tests.xen.patched import patched
from xenkdump_forge import SyntheticDump, write_dump


@pytest.mark.parametrize("kind", ["2006", "2006-x86_64", "32on64"])
def test_other_kernels(kind: str, tmp_path: Path) -> None:
    synthetic = write_dump(tmp_path, kind)
    domain = xk.open(synthetic.vmcore).domain(0, synthetic.vmlinux)
    kernel = domain.kernel
    program = xk.drgn_program(domain)
    banner = kernel.symbols["linux_banner"]
    assert program.read(banner, 14) == b"Linux version "
    assert program.symbol("linux_banner").address == banner
    assert program["VMCOREINFO"].string_().decode().count(f"OSRELEASE={kernel.release}\n") == 1
    task = program.type("struct task_struct")
    assert task.size == kernel.types.sizeof("task_struct")
    init = program["init_task"]
    assert init.comm.string_().decode() == kernel.tasks()[0].comm
    with pytest.raises(FaultError):
        program.read(0, 1)


def test_a_list_of_modules_without_an_end(synthetic: SyntheticDump, domain: xk.Domain) -> None:
    head = domain.kernel.symbols["modules"]
    first = domain.kernel.pointer(head)
    at = domain.virtual.translate(first)
    with patched(synthetic.vmcore, {at: first.to_bytes(8, "little")}):
        broken = xk.open(synthetic.vmcore).domain(0, synthetic.vmlinux)
        program = xk.drgn_program(broken)
        assert len(list(program.modules())) == 2  # the kernel, and one
        assert any("loops back" in text for text in broken.warnings)


def test_a_module_that_cannot_be_read(synthetic: SyntheticDump, domain: xk.Domain) -> None:
    kernel = domain.kernel
    head = kernel.symbols["modules"]
    at = domain.virtual.translate(head)
    with patched(synthetic.vmcore, {at: (0xFFFF_0000_DEAD_0000).to_bytes(8, "little")}):
        broken = xk.open(synthetic.vmcore).domain(0, synthetic.vmlinux)
        program = xk.drgn_program(broken)
        assert [module.name for module in program.modules()] == ["kernel"]
        assert any("breaks off" in text for text in broken.warnings)
