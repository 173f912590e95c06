"""What programs put before the lines of a log does not matter."""

import pytest

from xenkdump_fast import signature

OOPS = """\
BUG: kernel NULL pointer dereference, address: 0000000000000008
Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 2 PID: 42 Comm: foo Not tainted 6.1.0 #1
RIP: 0010:ext4_foo+0x12/0x40 [ext4]
Call Trace:
 <TASK>
 ext4_bar+0x10/0x90 [ext4]
 ? dput+0x1/0x2
 vfs_write+0xc7/0x400
 do_syscall_64+0x5d/0x90
 </TASK>
---[ end trace 0000000000000000 ]---
"""
PREFIXES = {
    "the console": "[   12.345678] ",
    "its level": "<1>[   12.345678] ",
    "the task": "[   12.345678][   T42] ",
    "syslog": "Nov 26 22:05:31 web7 kernel: [   12.345678] ",
    "its tag": "Nov 26 22:05:31 web7 kernel[1]: ",
    "dmesg -T": "[Thu Nov 26 22:05:31 2026] ",
    "dmesg -x": "kern  :alert : [   12.345678] ",
    "dmesg -x -T": "kern  :alert : [Thu Nov 26 22:05:31 2026] ",
    "dmesg --time-format iso": "2026-11-26T22:05:31,123456+00:00 ",
    "journalctl -o short-iso": "2026-11-26T22:05:31+0000 web7 kernel: ",
    "journalctl -o short-monotonic": "[12345.678901] web7 kernel: ",
    "a quotation": "    > [   12.345678] ",
}


@pytest.mark.parametrize("program", PREFIXES)
def test_prefixes(program: str) -> None:
    text = "".join(PREFIXES[program] + line + "\n" for line in OOPS.splitlines())
    found = signature.of_log(text)
    assert found is not None
    assert found.normal == "null-dereference:ext4_foo<-ext4_bar<-vfs_write"
    assert found == signature.of_log(OOPS)
