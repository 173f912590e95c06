"""A client in the test: answers compared with what the Python API reads."""

import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xenkdump_fast as xk
from xenkdump_fast.bridges.gdb.session import Session
from xenkdump_fast.commands import gdb_server
from xenkdump_fast.limits import MAX_GDB_PACKET
from xenkdump_fast.linux import panic

from .client import Client

Open = Callable[[str], xk.Domain]
Connect = Callable[..., Client]
KINDS = ("modern", "modern-hypercall-page", "32on64", "2006")


def test_the_start_of_a_session(domain: Open, connect: Connect) -> None:
    client = connect(domain("modern"))
    features = client.ask("qSupported:multiprocess+;swbreak+;xmlRegisters=i386").decode().split(";")
    assert f"PacketSize={MAX_GDB_PACKET:x}" in features
    assert not any(feature.startswith("multiprocess") for feature in features)
    assert client.others == b"+"
    assert client.ask("QStartNoAckMode") == b"OK"
    assert client.others == b"++"
    assert client.ask("?") == b"T05thread:2;"
    assert client.others == b"++"
    assert client.ask("qAttached") == b"1"
    assert client.ask("vMustReplyEmpty") == b""
    assert client.ask("vCont?") == b""
    # Without KASLR nothing is moved.
    assert client.ask("qOffsets") == b""


def test_the_panicking_task_is_selected(
    domain: Open, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    dom0 = domain("modern")
    active = dom0.kernel.active
    for task, expected in ((active[0], 1), (active[1], 2), (None, 1)):
        monkeypatch.setattr(panic, "task", lambda _, task=task: task)
        assert connect(dom0).ask("qC") == b"QC%x" % expected


def test_kaslr(domain: Open, connect: Connect) -> None:
    """The client moves the first segment of its file to where the text is."""
    dom0 = domain("modern")
    kernel = dom0.kernel
    kernel.location = kernel.location._replace(slide=0x1E00_0000)
    client = connect(dom0)
    assert client.ask("qOffsets") == b"TextSeg=%x" % kernel.symbols["_text"]
    assert f'symbol-file -o 0x1e000000 "{kernel.image.path}"' in client.monitor("kaslr")


def test_acknowledgements(domain: Open, connect: Connect) -> None:
    client = connect(domain("modern"))
    client.send(b"$qC#b5")
    assert client.ask("qC") == b"QC2"
    assert client.others == b"-+"
    client.send(b"-")
    assert client.packet() == b"QC2"
    # Ctrl-C has nothing to interrupt.
    client.send(b"+\x03")
    assert client.ask("qAttached") == b"1"


def test_a_packet_that_is_sent_again_before_the_server_is_ready(
    domain: Open, connect: Connect
) -> None:
    client = connect(domain("modern"))
    client.send(b"$qC#b4" * 3)
    assert client.packet() == b"QC2"
    assert client.ask("qAttached") == b"1"
    assert client.others == b"++++"


@pytest.mark.parametrize("kind", KINDS)
def test_registers_of_every_task(kind: str, domain: Open, connect: Connect) -> None:
    dom0 = domain(kind)
    kernel = dom0.kernel
    client = connect(dom0, tasks=True)
    listed = [int(number, 16) for number in client.ask("qfThreadInfo").decode()[1:].split(",")]
    assert client.ask("qsThreadInfo") == b"l"
    assert listed == list(range(1, len(listed) + 1))
    threads = client.document("threads:read:").findall("thread")
    assert [int(thread.attrib["id"], 16) for thread in threads] == listed
    assert len(threads) == len(kernel.tasks()) > 50
    pc, sp = ("rip", "rsp") if kernel.word == 8 else ("eip", "esp")
    sleeping = running = 0
    for thread in threads:
        text = thread.text or ""
        number = int(thread.attrib["id"], 16)
        assert bytes.fromhex(client.ask(f"qThreadExtraInfo,{number:x}").decode()).decode() == text
        pid = int((re.search(r"pid (\d+)", text) or [""])[1])
        candidates = [t for t in kernel.tasks() if (t.pid, t.comm) == (pid, thread.attrib["name"])]
        if pid == 0:
            cpu = int((re.search(r"CPU (\d+)", text) or [""])[1])
            candidates = [task for task in candidates if task.cpu == cpu]
        (task,) = candidates
        assert client.ask(f"Hg{number:x}") == b"OK"
        assert client.ask("qC") == b"QC%x" % number
        found = client.registers()
        trace = kernel.backtrace(task)
        if not trace.frames:
            assert set(found.values()) == {None}
            assert "has exited" in text
            continue
        first = trace.frames[0]
        if task.active:
            running += 1
            assert thread.attrib["core"] == str(task.cpu)
            if trace.registers is None:
                assert "registers from its own stack" in text
            is_stub = (first.symbol or "").startswith(("xen_hypercall_", "hypercall_page"))
            assert ("at its caller of" in text) == is_stub
            if is_stub:
                first = trace.frames[1]
                assert trace.registers is not None
                preserved = ("rbx", "rbp", "r12") if kernel.word == 8 else ("ebx", "ebp", "esi")
                assert {name: found[name] for name in preserved} == {
                    name: trace.registers[name] for name in preserved
                }
                assert found["rax" if kernel.word == 8 else "eax"] is None
            elif trace.registers is not None:
                names = found.keys() & trace.registers.keys()
                assert {n: found[n] for n in names} == {n: trace.registers[n] for n in names}
        else:
            sleeping += 1
            assert found["eflags"] is None
            assert found["rbp" if kernel.word == 8 else "ebp"] is not None
        assert (found[pc], found[sp]) == (first.pc, first.sp)
    assert sleeping > 50
    assert running == len(kernel.active) > 0


def test_without_tasks_only_those_that_cpus_ran(domain: Open, connect: Connect) -> None:
    dom0 = domain("modern")
    threads = connect(dom0).document("threads:read:").findall("thread")
    assert [t.attrib["name"] for t in threads] == [
        dom0.kernel.active[cpu].comm for cpu in sorted(dom0.kernel.active)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_single_registers(kind: str, domain: Open, connect: Connect) -> None:
    client = connect(domain(kind))
    everything = client.ask("g")
    count = len(list(client.document("features:read:target.xml").iter("reg")))
    assert b"".join(client.ask(f"p{number:x}") for number in range(count)) == everything
    assert client.ask(f"p{count:x}").startswith(b"E.")


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_memory(kind: str, domain: Open, connect: Connect) -> None:
    dom0 = domain(kind)
    client = connect(dom0)
    banner = dom0.kernel.symbols["linux_banner"]
    expected = dom0.virtual.read(banner, 64)
    assert bytes.fromhex(client.ask(f"m{banner:x},40").decode()) == expected
    assert client.ask(f"x{banner:x},40") == b"b" + expected
    # A page boundary behind which nothing is mapped: what is before it.
    end = banner & ~0xFFF
    for mapped in dom0.virtual.iter_mapped(end):
        if mapped.address > end:
            break
        end = mapped.address + mapped.size
    short = client.ask(f"m{end - 8:x},10").decode()
    assert bytes.fromhex(short) == dom0.virtual.read(end - 8, 8)
    assert client.ask(f"m{end:x},10") == b"E0e"
    assert client.ask(f"x{end:x},10") == b"E0e"


def test_all_bytes_of_a_binary_answer(domain: Open, connect: Connect) -> None:
    dom0 = domain("modern")
    client = connect(dom0)
    start = dom0.kernel.symbols["linux_banner"]
    data = dom0.virtual.read(start, 0x2000)
    assert set(b"$#}*") <= set(data)
    assert client.ask(f"x{start:x},2000") == b"b" + data


@pytest.mark.parametrize(
    "request_",
    [
        "m0,10",
        "mffffffffffffffff,10",
        "mffffffffffffffff1,10",
        "m-1,10",
        "m1000",
        "m1000,",
        "mffffffff81000000,0",
        "m,",
        "m1,2,3",
        "x0,10",
    ],
)
def test_what_is_no_memory(request_: str, domain: Open, connect: Connect) -> None:
    assert connect(domain("modern")).ask(request_) == b"E0e"


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ("c", "a dump cannot run"),
        ("C05", "a dump cannot run"),
        ("s", "a dump cannot run"),
        ("vCont;c", "a dump cannot run"),
        ("bs", "a dump cannot run"),
        ("Z0,ffffffff81000000,1", "a dump cannot run"),
        ("G00", "a dump cannot be changed"),
        ("P0=00", "a dump cannot be changed"),
        ("Mffffffff81000000,1:00", "a dump cannot be changed"),
        ("Xffffffff81000000,0:", "a dump cannot be changed"),
        ("Hg999", "there is no such thread"),
        ("qThreadExtraInfo,999", "there is no such thread"),
        ("pzz", "there is no such register"),
        ("qXfer:threads:read::1", "not two numbers in hex"),
        ("qRcmd,zz", "not a command in hex"),
    ],
)
def test_refusals(request_: str, why: str, domain: Open, connect: Connect) -> None:
    assert connect(domain("modern")).ask(request_) == b"E." + why.encode()


def test_user_memory_of_the_selected_thread(
    domain: Open, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synthetic dumps have no user memory: that of a task is another space here."""
    dom0 = domain("modern")
    spaces = {task.address: dom0.physical for task in dom0.kernel.tasks() if task.comm == "acpid"}

    def user(task: xk.Task) -> object:
        if task.address not in spaces:
            raise xk.AbsentError("no user space")
        return spaces[task.address]

    monkeypatch.setattr(dom0, "user", user)
    client = connect(dom0, tasks=True)
    (number,) = [
        int(thread.attrib["id"], 16)
        for thread in client.document("threads:read:").findall("thread")
        if thread.attrib["name"] == "acpid"
    ]
    assert client.ask("m1000,8") == b"E0e"
    assert client.ask(f"Hg{number:x}") == b"OK"
    assert bytes.fromhex(client.ask("m1000,8").decode()) == dom0.physical.read(0x1000, 8)
    # Kernel addresses are the kernel's in every thread.
    banner = dom0.kernel.symbols["linux_banner"]
    assert bytes.fromhex(client.ask(f"m{banner:x},8").decode()) == dom0.virtual.read(banner, 8)


def test_monitor(domain: Open, connect: Connect) -> None:
    dom0 = domain("modern")
    client = connect(dom0, tasks=True)
    assert "monitor kaslr: " in client.monitor("help")
    assert client.monitor("kaslr") == "KASLR offset: 0x0\n"
    assert "no command frobnicate" in client.monitor("frobnicate")
    task = next(task for task in dom0.kernel.tasks() if task.comm == "acpid")
    text = client.monitor(f"bt {task.pid}")
    assert f"PID: {task.pid} " in text
    assert "] schedule at " in text
    assert client.monitor("bt acpid") == text
    assert "has no task 99999" in client.monitor("bt 99999")
    # By default that of the selected thread.
    assert f"PID: {dom0.kernel.active[1].pid} " in client.monitor("bt")
    assert client.monitor("ps").count("\n") > 50
    assert "Linux version" in client.monitor("log")


def test_the_ends_of_a_session(domain: Open, connect: Connect) -> None:
    for request in ("D", "D;1", "k", "vKill;1"):
        client = connect(domain("modern"))
        assert client.ask(request) == b"OK"
        with pytest.raises(EOFError):
            client.packet()


WORDS = ("m", "x", "Hg", "Hc", "T", "p", "qRcmd,", "qXfer:threads:read::", "qThreadExtraInfo,", "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(WORDS), st.binary(max_size=64) | st.text("0123456789abcdef,:;-", max_size=40)
)
def test_any_packet_is_answered(domain: Open, word: str, rest: bytes | str) -> None:
    session = cached_session(domain)
    data = word.encode() + (rest.encode() if isinstance(rest, str) else rest)
    answers = list(session.answers(data))
    assert answers
    assert all(len(answer) <= MAX_GDB_PACKET for answer in answers)


SESSIONS: list[gdb_server.Server] = []


def cached_session(domain: Open) -> Session:
    if not SESSIONS:
        SESSIONS.append(gdb_server.run(domain("modern"), gdb_server.Options(port=0)))
    return SESSIONS[0].session()
