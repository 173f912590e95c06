"""Files that are given in place of a dump, a vmlinux or a xen-syms."""

import bz2
import gzip
import lzma
import os
import struct
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump

PADDING = bytes(8192)
DUMPS = {
    "LKCD": (b"\xed\x23\x8f\x61\x73\x01\x19\xa8" + PADDING, "libkdumpfile"),
    "SADUMP": (b"sadump\0\0" + PADDING, "makedumpfile -l"),
    "win-dmp": (b"PAGEDU64" + PADDING, "without -w"),
    "QEMU save": (b"QEVM\0\0\0\x03" + PADDING, "dump-guest-memory"),
    "libvirt save": (b"LibvirtQemudSave" + PADDING, "virsh dump --memory-only"),
}
#: Compressed files that hold nothing known.
COMPRESSED = {
    "gzip": (gzip.compress(PADDING), "gunzip"),
    "xz": (lzma.compress(PADDING), "unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + PADDING, "unzstd"),
    "bzip2": (bz2.compress(PADDING), "bunzip2"),
}
#: What holds no kernel for x86, although it looks so, and what is said about it.
KERNELS = {
    "bzImage": (
        b"\xea\x05".ljust(0x1FE, b"\0") + b"\x55\xaa\xeb\x6eHdrS" + PADDING,
        "expected a compressed kernel (boot protocol before 2.08)",
    ),
    "EFI executable": (b"MZ\0\0zimg" + PADDING, "give the vmlinux or vmlinuz"),
    "System.map": (
        b"ffffffff81000000 T _text\nffffffff81000000 T _stext\n",
        "a list of symbols without linux_banner",
    ),
    "module": (
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x01\0\x3e\0" + PADDING,
        "give the vmlinux or vmlinuz",
    ),
}
ORDER = "the order of the files is VMLINUX VMCORE"


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("formats") / "dump", like="modern")


@pytest.mark.parametrize("name", [*DUMPS, *COMPRESSED, *KERNELS])
def test_in_place_of_a_dump(name: str, tmp_path: Path) -> None:
    head, remedy = {**DUMPS, **COMPRESSED, **KERNELS}[name]
    (tmp_path / "file").write_bytes(head)
    with pytest.raises(xk.DumpError) as raised:
        xk.open(tmp_path / "file")
    assert name in str(raised.value)
    if name in COMPRESSED:
        remedy = "--cache-dir DIR"
    assert (ORDER if name in KERNELS else remedy) in str(raised.value)


@pytest.mark.parametrize("name", [*DUMPS, *COMPRESSED, *KERNELS])
def test_in_place_of_a_vmlinux(name: str, tmp_path: Path, synthetic: SyntheticDump) -> None:
    head, remedy = {**DUMPS, **COMPRESSED, **KERNELS}[name]
    (tmp_path / "file").write_bytes(head)
    with pytest.raises(xk.DumpError) as raised:
        xk.open(synthetic.vmcore).domain(0, tmp_path / "file")
    text = str(raised.value)
    if name in COMPRESSED:  # opened, and found to be something else
        assert f"compressed by {name}" in text or f"an intact {name} stream" in text
    else:
        assert (ORDER if name in DUMPS else remedy) in text


def test_swapped(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    vmlinux, vmcore = str(synthetic.vmlinux), str(synthetic.vmcore)
    assert main(["sys", vmlinux, vmcore]) == 0
    expected = capsys.readouterr()
    assert main(["sys", vmcore, vmlinux]) == 0
    found = capsys.readouterr()
    assert found.out == expected.out
    note = f"{vmlinux} is the vmlinux and {vmcore} the dump, by their contents\n"
    assert note in found.err


def test_two_dumps(synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    vmcore = str(synthetic.vmcore)
    assert main(["sys", vmcore, vmcore]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"xkdump: {vmcore}: an ELF core file")
    assert err.endswith(f"{ORDER}\n")


def test_in_place_of_a_xen_syms(
    tmp_path: Path, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(COMPRESSED["gzip"][0])
    assert main(["sys", "--hypervisor", str(tmp_path / "file"), str(synthetic.vmcore)]) == 3
    text = "expected an ELF file (7f 45 4c 46) compressed by gzip, found 00 00 00 00"
    assert text in capsys.readouterr().err
    (tmp_path / "file").write_bytes(KERNELS["EFI executable"][0])
    assert main(["sys", "--hypervisor", str(tmp_path / "file"), str(synthetic.vmcore)]) == 3
    assert "such as xen.efi: give the xen-syms" in capsys.readouterr().err


def test_a_hypervisor_as_it_is_booted(
    tmp_path: Path, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    """xen.gz is an ELF file without symbols, which a boot loader finds by the multiboot header."""
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, 0, 0, 0, 0, 52, 0, 0, 0, 0, 0
    )
    data = head.ljust(0x80, b"\0") + b"\x02\xb0\xad\x1b" + PADDING
    path = tmp_path / "xen.gz"
    path.write_bytes(gzip.compress(data))
    assert main(["sys", "--hypervisor", str(path), str(synthetic.vmcore)]) == 3
    assert "which has no symbols: give the xen-syms" in capsys.readouterr().err
    assert main(["sys", str(path), str(synthetic.vmcore)]) == 3
    assert "a Xen hypervisor as it is booted (xen.gz), in place of a vmlinux" in (
        capsys.readouterr().err
    )


def test_an_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"nonsense" + PADDING)
    with pytest.raises(xk.DumpError, match="starts with 6e 6f 6e 73 65 6e"):
        xk.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("head", "seen"),
    [
        (b"", "an empty file"),
        (b"<html>no</html>\n", "a file of 16 bytes that starts with '<html>no</html>\\n'"),
        (b"\0\1" + bytes(20), "a file of 22 bytes that starts with 00 01 00"),
    ],
)
def test_what_is_no_dump(
    head: bytes, seen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(head)
    assert main(["ps", str(tmp_path / "file")]) == 3
    (error,) = capsys.readouterr().err.splitlines()
    assert f"file: not a dump but {seen}" in error
    assert "--format raw" in error
    assert "expected" not in error


def test_a_directory_in_place_of_a_dump(
    synthetic: SyntheticDump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its dump is named, if there is exactly one."""

    def problem() -> str:
        with pytest.raises(xk.DumpError) as raised:
            xk.open(tmp_path)
        return str(raised.value)

    plain = f"{tmp_path}: expected a regular file, found a directory"
    (tmp_path / "vmlinux").symlink_to(synthetic.vmlinux)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to("nothing")
    assert problem() == plain
    (tmp_path / "core").symlink_to(synthetic.vmcore)
    assert problem() == f"{plain}; the only dump in it is {tmp_path / 'core'}"
    with monkeypatch.context() as patched:
        patched.setattr("xenkdump_fast.session.formats.MAX_LISTED_FILES", 4)
        assert problem() == plain
    (tmp_path / "other").symlink_to(synthetic.vmcore)
    assert problem() == plain
