"""Hosts of any size: the reader finds all that was written."""

from pathlib import Path

import pytest

import xenkdump_fast
from xenkdump_fast.commands import bt, ps
from xenkdump_fast.linux import modules, pids, printk
from xenkdump_forge.hosts.scaled import Scale, ScaledHost, write_scaled_host
from xenkdump_forge.kernels.v6_1 import crowd


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ScaledHost:
    scale = Scale(domains=6, tasks=1500, modules=30, cpus=70, log_bits=16)
    return write_scaled_host(tmp_path_factory.mktemp("scaled"), scale)


@pytest.fixture(scope="module")
def domain(host: ScaledHost) -> xenkdump_fast.Domain:
    return xenkdump_fast.open(host.vmcore).domain(0, host.vmlinux)


def test_tasks(host: ScaledHost, domain: xenkdump_fast.Domain) -> None:
    found = ps.run(domain)
    processes = list(found.processes)
    assert len(processes) == len(found.processes) == host.tasks + host.cpus >= 1570
    assert found.processes[-1] == processes[-1]
    assert found.processes[-3:] == processes[-3:]
    added = [one for one in processes if one.task.pid >= 2000]
    assert [one.task.pid for one in added] == list(range(2000, 2000 + len(added)))
    for i, one in enumerate(added):
        leader = 2000 + i // crowd.GROUP * crowd.GROUP + crowd.LEADER
        is_user = i % crowd.GROUP >= crowd.LEADER
        assert one.task.tgid == (leader if is_user else one.task.pid)
        assert one.ppid == (1 if is_user else 2)
        assert one.kernel_thread != is_user
        assert bool(one.vsz) == is_user
    assert len(set(pids.tasks(domain.kernel))) == host.tasks
    assert not [text for text in domain.warnings if "RSS" not in text]


def test_stacks(domain: xenkdump_fast.Domain) -> None:
    traces = list(bt.run(domain, bt.Options(all=True)).traces)
    added = [trace for trace in traces if trace.task.pid >= 2000]
    assert len({frame.sp for trace in added for frame in trace.frames}) > 5 * len(added)
    for trace in added:
        assert trace.stopped is None
        assert not any(frame.guess for frame in trace.frames)
        assert all(
            trace.task.stack < frame.sp <= trace.task.stack + 0x4000
            for frame in trace.frames
            if not frame.user
        )
    assert len({tuple(frame.symbol for frame in trace.frames) for trace in added}) == 3


def test_the_rest(host: ScaledHost, domain: xenkdump_fast.Domain) -> None:
    assert len(list(modules.modules(domain.kernel))) == host.modules == 30
    assert sorted(domain.kernel.active) == list(range(host.cpus))
    assert len(list(printk.lines(domain.kernel))) == host.messages > 500
    found = domain.dump.xen().domains()
    assert [one.id for one in found] == list(range(6))
    assert len(found[0].vcpus) == 70
    assert [one.kind for one in found] == ["pv", "pv", "hvm", "pv", "hvm", "pv"]


def test_a_host_with_one_domain(tmp_path: Path) -> None:
    host = write_scaled_host(tmp_path, Scale(domains=1, cpus=1))
    dump = xenkdump_fast.open(host.vmcore)
    assert dump.domain_ids == [0]
    assert host.memory == 1 << 30
    assert list(dump.domain(0).kernel.active) == [0]
