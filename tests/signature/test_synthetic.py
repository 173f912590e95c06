"""Signatures of synthetic dumps: every kind of crash, by memory and by the log."""

from dataclasses import replace
from pathlib import Path

import pytest

import xenkdump_fast
from xenkdump_fast import signature
from xenkdump_fast.signature import Death, kernel_stack
from xenkdump_forge import write_dump
from xenkdump_forge.kernels.v6_1.crashes import CRASHES

_DIED = {"xen-page-fault": "Xen", "domu-panic": "domain 1"}
_KIND = {"domu-panic": "panic"}
_MEMORY = 64 << 20


def _death(directory: Path, crash: str, build: int = 0) -> tuple[xenkdump_fast.Dump, Death]:
    files = write_dump(
        directory, "modern", memory=_MEMORY, seed=build, crash=crash, kernel_build=build
    )
    dump = xenkdump_fast.open(files.vmcore)
    death = signature.of(dump)
    assert death is not None
    return dump, death


@pytest.fixture(scope="module")
def hashes() -> dict[str, str]:
    """The hash of each crash that was tested."""
    return {}


@pytest.mark.parametrize("crash", CRASHES)
def test_every_crash(crash: str, tmp_path: Path, hashes: dict[str, str]) -> None:
    dump, death = _death(tmp_path, crash)
    found = death.signature
    assert found is not None
    assert death.title == _DIED.get(crash, "dom0")
    assert found.kind == _KIND.get(crash, crash)
    where = [signature.normal_form.name(one) for one in CRASHES[crash].where]
    if found.source == "stack" and crash != "hung-task":
        assert list(found.functions[:2]) == where[:2]
    assert found.hash not in hashes.values()
    hashes[crash] = found.hash
    if death.domain is not None:
        fault = kernel_stack.fault_of(dump.domain(death.domain).kernel)
        assert fault is not None
        # By what the kernel printed, and by its stack in memory.
        assert fault.signature().hash == found.hash


@pytest.mark.parametrize("crash", ["null-dereference", "warning", "soft-lockup", "panic"])
def test_other_builds_have_the_same_signature(crash: str, tmp_path: Path) -> None:
    found = {_hash(_death(tmp_path / str(build), crash, build)[1]) for build in (0, 4)}
    assert len(found) == 1


def _hash(death: Death) -> str:
    assert death.signature is not None
    return death.signature.hash


def test_without_a_log_the_stack_says_the_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_stack, "fault_of", lambda kernel: None)
    files = write_dump(tmp_path, "modern", memory=_MEMORY, crash="general-protection")
    kernel = xenkdump_fast.open(files.vmcore).domain().kernel
    found = signature.of_kernel(kernel)
    assert found is not None
    assert found.kind == "general-protection"
    assert found.functions[:2] == ("kmem_cache_alloc", "alloc_inode")
    assert any("kind of the fault" in text for text in kernel.warnings)


def test_without_a_stack_the_log_has_the_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_dump(tmp_path, "modern", memory=_MEMORY, crash="bug")
    kernel = xenkdump_fast.open(files.vmcore).domain().kernel
    by_stack = signature.of_kernel(kernel)
    monkeypatch.setattr(kernel_stack, "_frames", lambda kernel, task: ())
    by_log = signature.of_kernel(kernel)
    assert by_stack is not None
    assert by_log is not None
    assert (by_stack.source, by_log.source) == ("stack", "log")
    assert by_stack.hash == by_log.hash


def test_without_tasks_the_log_has_the_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: object) -> None:
        raise xenkdump_fast.AbsentError("no task")

    monkeypatch.setattr("xenkdump_fast.linux.panic.task", absent)
    files = write_dump(tmp_path, "modern", memory=_MEMORY, crash="bug")
    kernel = xenkdump_fast.open(files.vmcore).domain().kernel
    found = signature.of_kernel(kernel)
    assert found is not None
    assert found.source == "log"
    assert "no signature from the stack: no task" in kernel.warnings


def test_a_living_host_has_none(tmp_path: Path) -> None:
    files = write_dump(tmp_path, "modern", memory=_MEMORY, crash="domu-panic")
    dump = xenkdump_fast.open(files.vmcore)
    assert signature.of_kernel(dump.domain(0).kernel) is None


def test_an_oops_that_a_guest_survived(tmp_path: Path) -> None:
    crash = replace(CRASHES["domu-panic"], before=(CRASHES["divide-error"].before[0],))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CRASHES, "domu-oops", crash)
        files = write_dump(tmp_path, "modern", memory=_MEMORY, crash="domu-oops")
    dump = xenkdump_fast.open(files.vmcore)
    found = signature.of_kernel(dump.domain(1).kernel)
    assert found is not None
    assert found.kind == "divide-error"
    # The guest did not panic, and the host did not die.
    assert signature.of(dump) is None
