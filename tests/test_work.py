"""Calls into Rust on hosts of different size: they grow no faster than the output."""

import io
import tracemalloc
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import xenkdump_fast
from xenkdump_fast.cli import main
from xenkdump_fast.linux import cpus, percpu, tasklist
from xenkdump_fast.xen import memory
from xenkdump_forge.hosts.scaled import Scale, write_scaled_host

from .crossings import counted, crossings

Capsys = pytest.CaptureFixture[str]


def calls(command: list[str], scale: Scale, folder: Path, capsys: Capsys) -> tuple[int, str]:
    host = write_scaled_host(folder, scale)
    return crossings([*command, str(host.vmlinux), str(host.vmcore)], capsys)


def test_ps_reads_tasks_in_batches(tmp_path: Path, capsys: Capsys) -> None:
    few, _ = calls(["ps"], Scale(tasks=1000), tmp_path, capsys)
    many, text = calls(["ps"], Scale(tasks=5000), tmp_path, capsys)
    assert len(text.splitlines()) > 5000
    # Four more batches of 1024, each of which is read in parts.
    assert few <= many < few + 4 * 32


@pytest.mark.parametrize(
    ("command", "most"), [("ps", 180), ("ps --json", 180), ("bt --all --group", 100)]
)
def test_a_task_takes_little_memory(
    command: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both hosts have several batches.
    monkeypatch.setattr(tasklist, "THREAD_GROUPS", 512)
    peaks = []
    for count in (3000, 11_000):
        host = write_scaled_host(tmp_path, Scale(tasks=count))
        with redirect_stdout(Nothing()):
            tracemalloc.start()
            try:
                assert main([*command.split(), str(host.vmlinux), str(host.vmcore)]) == 0
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 8000 < most


class Nothing(io.TextIOBase):
    """A file that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def test_backtraces_of_xen_do_not_read_all_domains(tmp_path: Path, capsys: Capsys) -> None:
    found = []
    for count in (20, 40):
        host = write_scaled_host(tmp_path, Scale(domains=count))
        found.append(crossings(["bt", "--hypervisor", str(host.vmcore)], capsys))
    (few, short), (many, long) = found
    assert len(short) == len(long)
    # The list of domains only.
    assert few < many < few + 20 * 8


@pytest.mark.parametrize("command", ["bt -a", "vcpus", "pcpus"])
def test_each_cpu_costs_the_same(command: str, tmp_path: Path, capsys: Capsys) -> None:
    counts = []
    for count in (50, 100, 200):
        host = write_scaled_host(tmp_path, Scale(cpus=count, domains=1))
        counts.append(crossings([*command.split(), str(host.vmcore)], capsys)[0])
    assert counts[2] - counts[1] < 2.1 * (counts[1] - counts[0])


@pytest.mark.parametrize(("command", "most"), [("bt -a", 22), ("vcpus", 22), ("pcpus", 16)])
def test_stacks_of_pcpus_are_read_in_batches(
    command: str, most: int, tmp_path: Path, capsys: Capsys
) -> None:
    """Calls for each pCPU: 52 if each stack is read, and each of its words looked up, by itself."""
    counts = []
    for count in (100, 200):
        host = write_scaled_host(tmp_path, Scale(cpus=count, domains=1))
        counts.append(crossings([*command.split(), str(host.vmcore)], capsys)[0])
    assert 100 < counts[1] - counts[0] < 100 * most


def test_numbers_of_vcpus_are_read_together(tmp_path: Path) -> None:
    host = write_scaled_host(tmp_path, Scale(cpus=200, domains=1))
    kernel = xenkdump_fast.open(host.vmcore).domain(0, host.vmlinux).kernel
    every = percpu.possible(kernel)
    assert len(every) == 200
    for read in (cpus._vcpu_ids, cpus._bases):
        totals = []
        for some in (every[:20], every):
            with counted() as calls:
                assert len(read(kernel, some)) == len(some)
            totals.append(calls.total())
        assert 0 < totals[1] == totals[0]


def test_pages_of_scattered_reads_are_unmapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    """Otherwise 280 MiB of the file stay mapped with 4,095 CPUs: 64 KiB for the stack of each."""
    monkeypatch.setattr(memory, "MAX_UNRELEASED_XEN_READS", 100)
    host = write_scaled_host(tmp_path, Scale(cpus=300, domains=1))
    with counted() as calls:
        assert main(["vcpus", str(host.vmcore)]) == 0
    capsys.readouterr()
    # A batch of 256 pCPUs, and after every 100 reads of Xen's structs.
    reads = calls["read"] + calls["word"]
    assert reads > 2000
    assert reads // 100 - 1 <= calls["release"] <= reads // 100 + 3


def test_each_module_costs_the_same(tmp_path: Path, capsys: Capsys) -> None:
    counts = [
        calls(["bt", "-a"], Scale(modules=count), tmp_path, capsys)[0] for count in (50, 100, 200)
    ]
    assert counts[2] - counts[1] < 2.1 * (counts[1] - counts[0])
