"""Signatures of the real dumps, by the stack in memory and by the call trace in the log."""

from collections.abc import Callable

import pytest

import xenkdump_fast
from xenkdump_fast import Domain, signature
from xenkdump_fast.signature import kernel_stack

pytestmark = pytest.mark.real

DUMPS = (
    *("xen417-dom0", "xen417-three-domains", "xen417-mixed-pcpus", "xen420-pv-pvh"),
    *("bare-x86_64", "linux73-bare", "bare-i386-pae", "bare-i386"),
)
#: All of them died by ``echo c > /proc/sysrq-trigger``: Linux 6.1, 6.12 and 7.3, 64 and 32 bits.
SYSRQ = (
    "sysrq:sysrq_handle_crash<-__handle_sysrq<-write_sysrq_trigger<-proc_reg_write<-vfs_write"
    "<-ksys_write"
)


@pytest.mark.parametrize("name", DUMPS)
def test_memory_and_log_agree(name: str, domain: Callable[[str], Domain]) -> None:
    kernel = domain(name).kernel
    by_stack = signature.of_kernel(kernel)
    fault = kernel_stack.fault_of(kernel)
    assert by_stack is not None
    assert fault is not None
    # The vmlinux of bare-i386 has no unwind tables: its frames are guesses, and the log has better.
    assert by_stack.source == ("log" if name == "bare-i386" else "stack")
    assert by_stack.normal == fault.signature().normal == SYSRQ


@pytest.mark.parametrize("name", ["xen417-dom0", "bare-x86_64"])
def test_without_a_vmlinux(name: str, dump_file: Callable[[str], str]) -> None:
    death = signature.of(xenkdump_fast.open(dump_file(f"{name}/vmcore")))
    assert death is not None
    assert death.title == ("dom0" if name.startswith("xen") else "kernel")
    assert death.signature is not None
    assert death.signature.normal == SYSRQ


def test_a_running_guest_has_none(dump_file: Callable[[str], str]) -> None:
    assert signature.of(xenkdump_fast.open(dump_file("xen417-three-domains/domu1.core"))) is None
