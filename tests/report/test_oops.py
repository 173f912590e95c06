"""Oopses in logs, and the code in them."""

from typing import Any

import pytest

from xenkdump_fast.report import code, oops

#: A page fault of Linux 6.1 that became a panic, after an oops that did not.
FAULT = """\
BUG: unable to handle page fault for address: ffffc90000abc000
#PF: supervisor read access in kernel mode
Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 3 PID: 77 Comm: old Not tainted 6.1.0-1-amd64 #1
RIP: 0010:old_one+0x5/0x20 [old]
Code: 90 90 <0f> 0b
RAX: 0000000000000007 RBX: 0000000000000000 RCX: 0000000000000000
---[ end trace 0000000000000000 ]---
audit: something else
BUG: kernel NULL pointer dereference, address: 0000000000000010
#PF: supervisor write access in kernel mode
#PF: error_code(0x0002) - not-present page
PGD 0 P4D 0
Oops: 0002 [#2] PREEMPT SMP NOPTI
CPU: 1 PID: 421 Comm: worker Tainted: G      D 6.1.0-1-amd64 #1
RIP: e030:some_function+0x1a/0x40 [some_module]
Code: 31 c0 c3 0f 1f 44 00 00 48 8b 47 08 <c7> 40 10 01 00 00 00 c3 66 90
RSP: e02b:ffffc90000d3fe50 EFLAGS: 00010246
RAX: 0000000000000000 RBX: ffff888004e8c8c0 RCX: 0000000000000001
R13: 00000000239063a0 R14: 0000000000000001 R15: 00007ffceae6f990
CR2: 0000000000000010 CR3: 0000000102030000 CR4: 0000000000050660
Call Trace:
 <TASK>
 worker_thread+0x4d/0x3f0
 </TASK>
---[ end trace 0000000000000000 ]---
Kernel panic - not syncing: Fatal exception
""".splitlines()

#: The stack of SysRq: its registers are those of user space.
SYSRQ = """\
sysrq: Trigger a crash
Kernel panic - not syncing: sysrq triggered crash
CPU: 0 PID: 421 Comm: do_kdump Not tainted 6.1.0-56-amd64 #1
RIP: 0033:0x47b7a0
Code: 40 00 48 <48> 3d 00 f0 ff ff
RAX: ffffffffffffffda RBX: 0000000000000001 RCX: 000000000047b7a0
""".splitlines()

#: Linux 2.6.18, on i386 under Xen: the kernel runs in ring 1.
OLD = """\
Unable to handle kernel NULL pointer dereference at virtual address 00000000
 printing eip:
c01f54e4
Oops: 0002 [#1]
SMP
CPU:    1
EIP:    0061:[<c01f54e4>]    Not tainted VLI
EFLAGS: 00010246   (2.6.18.8-xen #1)
EIP is at sysrq_handle_crash+0x8/0x10
eax: 00000063   ebx: 00000000   ecx: 00000000   edx: 00000000
Code: 00 00 55 89 e5 <c6> 05 00 00 00 00 01 5d c3
Kernel panic - not syncing: Fatal exception
""".splitlines()

XEN = """\
(XEN) Xen version 4.17.5 (Debian)
(XEN) ----[ Xen-4.17.5  x86_64  debug=n  Not tainted ]----
(XEN) CPU:    2
(XEN) RIP:    e008:[<ffff82d040220c1a>] do_crash+0xa/0x10
(XEN) RFLAGS: 0000000000010246   CONTEXT: hypervisor
(XEN) rax: 0000000000000000   rbx: ffff83003ffe7000   rcx: 0000000000000000
(XEN) r12: 0000000000000063   cr0: 0000000080050033   cr4: 00000000000006e0
(XEN) Xen code around <ffff82d040220c1a> (do_crash+0xa/0x10):
(XEN)  90 90 c7 04 25 00 00 00 <0f> 0b 5d c3
(XEN) Xen call trace:
(XEN)    [<ffff82d040220c1a>] R do_crash+0xa/0x10
(XEN) ****************************************
(XEN) Panic on CPU 2:
(XEN) FATAL TRAP: vec 6, #UD[0000]
(XEN) ****************************************
""".splitlines()


def test_the_oops_of_the_panic() -> None:
    found = oops.find(FAULT)
    assert found is not None
    assert (found.symbol, found.offset, found.module) == ("some_function", 0x1A, "some_module")
    assert found.title == "BUG: kernel NULL pointer dereference, address: 0000000000000010"
    assert found.error == "0x0002, page not present, write, kernel mode"
    assert found.registers["rax"] == 0
    assert found.registers["rbx"] == 0xFFFF_8880_04E8_C8C0
    assert found.registers["rsp"] == 0xFFFF_C900_00D3_FE50
    assert found.registers["r15"] == 0x7FFC_EAE6_F990
    assert found.registers["cr2"] == 0x10
    assert found.code[found.code_at :].startswith(bytes.fromhex("c7 40 10 01"))


def test_user_space_is_no_oops() -> None:
    assert oops.find(SYSRQ) is None
    # The oops before a later panic by SysRq that is not of it is not far enough away to tell.
    assert oops.find(["nothing", "Kernel panic - not syncing: x"]) is None


def test_ring_1_is_the_kernel() -> None:
    found = oops.find(OLD)
    assert found is not None
    assert found.symbol == "sysrq_handle_crash" or found.address == 0xC01F_54E4
    assert found.error == "0x0002, page not present, write, kernel mode"
    assert found.code[found.code_at] == 0xC6


def test_xen() -> None:
    found = oops.find_xen(XEN)
    assert found is not None
    assert found.address == 0xFFFF_82D0_4022_0C1A
    assert found.registers["rbx"] == 0xFFFF_8300_3FFE_7000
    assert found.registers["cr4"] == 0x6E0
    assert found.code[found.code_at :] == bytes.fromhex("0f 0b 5d c3")
    assert oops.find_xen(["(XEN) nothing"]) is None


@pytest.mark.parametrize("lines", [FAULT, OLD, SYSRQ, XEN])
@pytest.mark.parametrize("cut", [1, 5, 9, 40])
def test_damaged_logs(lines: list[str], cut: int) -> None:
    """Every line cut at some place, and lines in another order, give something or nothing."""
    for found in ([line[:cut] for line in lines], lines[::-1], lines[cut % len(lines) :]):
        for parsed in (oops.find(found), oops.find_xen(found)):
            assert parsed is None or parsed.code_at <= len(parsed.code)


class Memory:
    """Memory with these bytes everywhere."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, address: int, size: int) -> bytes:
        return self.data[:size]


def test_code_of_the_log() -> None:
    found = oops.find(FAULT)
    assert found is not None
    for data, agrees in ((found.code, True), (bytes(len(found.code)), False)):
        memory: Any = Memory(data)
        decoded = code.in_log(
            found.code, found.code_at, 0x1000, 8, memory, lambda at: ("f", at - 0xFE6)
        )
        assert decoded is not None
        assert decoded["agrees"] is agrees
        (marked,) = (one for one in decoded["instructions"] if one["marked"])
        assert marked["address"] == "0x1000"
        assert marked["text"].split() == ["movl", "$0x1,0x10(%rax)"]
        assert decoded["instructions"][-1]["text"].startswith("xchg")


def test_code_at_the_ends_of_memory() -> None:
    data = bytes.fromhex("90 90 0f 0b")
    memory: Any = Memory(data)
    for pc in (0, 1, (1 << 64) - 1, None):
        decoded = code.in_log(data, 2, pc, 8, memory, lambda at: None)
        assert decoded is None or pc is None
