"""A vmlinux or a xen-syms of another build: the error names both builds."""

import pickle
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.linux.boot.build_id import Build
from xenkdump_fast.session.platform import Bare, Platform
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("builds") / "dump", like="modern")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("builds") / "other", like="2006-x86_64")


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        (Build("6.1.0", "#1", "aa"), Build("6.1.0", "#1", "bb"), True),
        (Build("6.1.0", "#1", "aa"), Build("6.1.0", "#2", "aa"), False),
        (Build("6.1.0", "#1", "aa"), Build("6.1.0", "#2"), True),
        (Build("6.1.0", "#1"), Build("6.1.0", None, "bb"), False),
        (Build("6.1.0", "#1"), Build("6.1.1"), True),
        (Build(None, None, "aa"), Build("6.1.0", "#1"), False),
    ],
)
def test_differences_of_builds(first: Build, second: Build, differ: bool) -> None:
    assert first.differs(second) == second.differs(first) == differ


def test_the_build_of_an_image(synthetic: SyntheticDump) -> None:
    kernel = xk.open(synthetic.vmcore).domain(0, synthetic.vmlinux).kernel
    build = Build.of(kernel.image)
    assert build.release == "6.1.0-56-amd64"
    assert build.version is not None
    assert build.version.startswith("#1 SMP PREEMPT_DYNAMIC")
    assert build.build_id == kernel.image.build_id


@pytest.mark.parametrize("bare", [False, True])
def test_a_wrong_vmlinux(
    bare: bool, synthetic: SyntheticDump, other: SyntheticDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bare:
        # The same machine memory without Xen's notes, and with the kernel's VMCOREINFO.
        def bare_platform(dump: xk.Dump, _: int) -> Platform:
            return Bare(dump)

        monkeypatch.setattr("xenkdump_fast.session.platform.platform_of", bare_platform)
        facts = {"OSRELEASE": "6.1.0-56-amd64", "BUILD-ID": "00ff"}
        monkeypatch.setattr(xk.Dump, "vmcoreinfo", facts)
    with pytest.raises(xk.MismatchError) as raised:
        xk.open(synthetic.vmcore).domain(0, other.vmlinux)
    text = str(raised.value)
    assert f"{other.vmlinux} is not the kernel of the dump: it is 2.6.16.13" in text
    assert "domain 0 runs 6.1.0-56-amd64" in text
    assert "entry" not in text
    assert text.endswith(" (force=True continues anyway)")


def test_a_wrong_xen_syms(tmp_path: Path, synthetic: SyntheticDump) -> None:
    symbols = tmp_path / "xen-syms.map"
    symbols.write_text("ffff82d040200000 T _start\nffff82d040200040 T __high_start\n")
    with pytest.raises(xk.MismatchError, match=r"the dump is of Xen 4\.17") as raised:
        xk.open(synthetic.vmcore).xen(symbols)
    assert str(raised.value).endswith(" (force=True continues anyway)")
    copied = pickle.loads(pickle.dumps(raised.value))
    assert (str(copied), copied.can_force) == (str(raised.value), True)


def test_an_image_without_a_kernel(tmp_path: Path, synthetic: SyntheticDump) -> None:
    """What is wrong with the image is said once, not for each source of the P2M."""
    image = tmp_path / "xen-syms"
    image.write_bytes(
        Path(synthetic.vmlinux).read_bytes().replace(b"\0linux_banner\0", b"\0linux_bannex\0")
    )
    with pytest.raises(xk.AbsentError, match="not a Linux kernel, or stripped") as raised:
        xk.open(synthetic.vmcore).domain(0, image)
    text = str(raised.value)
    assert text.count("no symbol linux_banner") == 1
    assert "P2M by" not in text
    image.write_bytes(image.read_bytes().replace(b"\0init_task\0", b"\0idle_vcpu\0"))
    with pytest.raises(xk.AbsentError, match="a xen-syms, in place of a vmlinux"):
        xk.open(synthetic.vmcore).domain(0, image)
