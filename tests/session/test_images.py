"""The image of a kernel in the forms in which people have it: each gives what the vmlinux gives."""

import bz2
import json
import shutil
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import xenkdump_fast as xk
from xenkdump_fast._native import Image
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump
from xenkdump_forge.boot import bzimage
from xenkdump_forge.boot.encoders import ENCODERS

COMMANDS = (["bt", "--all"], ["ps"], ["log"], ["sys"], ["mod"])
COMPRESSED = [f"vmlinux.{suffix}" for suffix in ("gz", "bz2", "lzma", "xz", "lzo", "lz4", "zst")]
BOOTED = [*(f"vmlinuz-{name}" for name in ENCODERS), "vmlinuz-old", "vmlinuz.efi"]
#: What ``sys`` says about an image, after its path.
SOURCES = {
    "System.map": " (types from memory)",
    **dict.fromkeys(COMPRESSED, ""),
    **dict.fromkeys(BOOTED, " (symbols from its kallsyms, types from its BTF)"),
}


@pytest.fixture(scope="module", params=["2006", "2006-x86_64"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("images"), request.param, images=True)


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("modern"), "modern", images=True)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("foreign"), "32on64", images=True)


def output(
    arguments: Sequence[str], files: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> Any:
    capsys.readouterr()
    status = main([*arguments, "--json", *files])
    captured = capsys.readouterr()
    if status != 0:
        return status
    found = json.loads(captured.out)
    if arguments == ["sys"]:
        del found["kernel"]
    return found


def _compression(name: str) -> str:
    return "gzip" if name == "vmlinuz-old" else name.removeprefix("vmlinuz-")


def _contents(image: Image) -> list[bytes | None]:
    """The bytes of each section."""
    found: list[bytes | None] = []
    for name, *_ in image.sections():
        try:
            found.append(image.section(name))
        except xk.AbsentError:
            found.append(None)
    return found


def fails(image: Path, dump: SyntheticDump) -> str:
    """The message if an image cannot be opened."""
    with pytest.raises(xk.DumpError) as raised:
        xk.open(dump.vmcore).domain(0, image)
    return str(raised.value)


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_as_with_the_vmlinux(
    name: str, modern: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    path = modern.directory / "images" / name
    files = str(path), str(modern.vmcore)
    for command in COMMANDS:
        expected = output(command, [str(modern.vmlinux), str(modern.vmcore)], capsys)
        assert not isinstance(expected, int)
        assert output(command, files, capsys) == expected
    main(["sys", "--json", *files])
    assert json.loads(capsys.readouterr().out)["kernel"] == f"{path}{SOURCES[name]}"


@pytest.mark.parametrize("name", ["vmlinux.gz", "vmlinux.stripped"])
def test_debugging_information(
    name: str, made: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    """DWARF and call frames are used as in the whole file."""
    files = str(made.directory / "images" / name), str(made.vmcore)
    for command in COMMANDS:
        expected = output(command, [str(made.vmlinux), str(made.vmcore)], capsys)
        assert output(command, files, capsys) == expected


@pytest.mark.parametrize("name", ["vmlinuz-xz", "System.map"])
def test_without_types(name: str, made: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel of 2006 has no types but in the debugging information."""
    files = str(made.directory / "images" / name), str(made.vmcore)
    plain = str(made.vmlinux), str(made.vmcore)
    assert output(["log"], files, capsys) == output(["log"], plain, capsys)
    found, expected = (output(["ps"], both, capsys)["tasks"] for both in (files, plain))
    assert [task["task"] for task in found] == [task["task"] for task in expected]


@pytest.mark.parametrize("name", ["vmlinuz-zstd", "vmlinux.xz", "System.map"])
def test_swapped(name: str, modern: SyntheticDump, capsys: pytest.CaptureFixture[str]) -> None:
    path, vmcore = str(modern.directory / "images" / name), str(modern.vmcore)
    assert main(["sys", vmcore, path]) == 0
    assert f"{path} is the vmlinux and {vmcore} the dump" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vmlinuz-gzip", "vmlinux.gz", "System.map", "vmlinux.stripped"])
def test_another_build(name: str, modern: SyntheticDump, foreign: SyntheticDump) -> None:
    """It is refused like another vmlinux."""
    image = foreign.directory / "images" / name
    with pytest.raises(xk.AbsentError):
        xk.open(modern.vmcore).domain(0, image)


class TestMap:
    """A System.map, which has no build id."""

    @pytest.fixture
    def lines(self, modern: SyntheticDump) -> list[str]:
        return (modern.directory / "images" / "System.map").read_text().splitlines()

    def test_moved_symbols(self, modern: SyntheticDump, lines: list[str], tmp_path: Path) -> None:
        """The banner is where it says, and other symbols are not."""
        path = tmp_path / "System.map-6.1.0-other"
        moved = []
        for line in lines:
            address, rest = line.split(" ", 1)
            if "banner" not in rest and rest.startswith(("t ", "T ")) and "_stext" not in rest:
                address = f"{int(address, 16) + 16:016x}"
            moved.append(f"{address} {rest}\n")
        path.write_text("".join(moved))
        with pytest.raises(xk.MismatchError) as raised:
            xk.open(modern.vmcore).domain(0, path)
        text = str(raised.value)
        assert "(by its name, of 6.1.0-other) is not the map of the kernel in the dump" in text
        assert xk.open(modern.vmcore).domain(0, modern.vmlinux).kernel.release in text
        domain = xk.open(modern.vmcore).domain(0, path, force=True)
        assert any("is not the map of the kernel" in warning for warning in domain.warnings)

    def test_another_place_of_the_banner(
        self, modern: SyntheticDump, lines: list[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "System.map"
        path.write_text("\n".join(lines).replace(" linux_banner", " was_banner") + "\n")
        with pytest.raises(xk.DumpError, match="a list of symbols without linux_banner"):
            xk.open(modern.vmcore).domain(0, path)
        wrong = [line for line in lines if not line.endswith(" linux_banner")]
        wrong.append(f"{int(lines[0].split()[0], 16):016x} R linux_banner")
        path.write_text("\n".join(wrong) + "\n")
        with pytest.raises(xk.AbsentError, match=r"not the map of the kernel|was not found"):
            xk.open(modern.vmcore).domain(0, path)

    def test_too_little_to_compare(
        self, modern: SyntheticDump, lines: list[str], tmp_path: Path
    ) -> None:
        path = tmp_path / "System.map"
        needed = (" linux_banner", " swapper_pg_dir", " init_top_pgt", " init_level4_pgt")
        kept = [line for line in lines if line.endswith((*needed, " xen_p2m_addr"))]
        path.write_text("\n".join(kept) + "\n")
        domain = xk.open(modern.vmcore).domain(0, path)
        assert any("cannot verify that" in warning for warning in domain.warnings)

    def test_a_substitute(self, modern: SyntheticDump, tmp_path: Path) -> None:
        """Debian's file in /boot."""
        path = tmp_path / "System.map"
        path.write_text("f" * 16 + " B The real System.map is in the dbg package\n")
        assert "without linux_banner" in fails(path, modern)


class TestDebugFile:
    """A stripped file with its debug file elsewhere."""

    @pytest.fixture
    def stripped(self, modern: SyntheticDump, tmp_path: Path) -> Path:
        path = tmp_path / "boot" / "vmlinux-6.1"
        path.parent.mkdir()
        shutil.copy(modern.directory / "images" / "vmlinux.stripped", path)
        return path

    @pytest.mark.parametrize("place", ["beside", ".debug", "by folder", "by id", "by name"])
    def test_places(
        self,
        place: str,
        modern: SyntheticDump,
        stripped: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        debug = modern.directory / "images" / "vmlinux.debug"
        build_id = Image(debug).build_id
        assert build_id is not None
        folder = tmp_path / "debug"
        monkeypatch.setenv("XKDUMP_DEBUG_PATH", str(folder))
        target = {
            "beside": stripped.parent / "vmlinux.debug",
            ".debug": stripped.parent / ".debug" / "vmlinux.debug",
            "by folder": folder / str(stripped.parent).lstrip("/") / "vmlinux.debug",
            "by id": folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug",
            "by name": folder / "vmlinux-6.1",
        }[place]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(debug, target)
        kernel = xk.open(modern.vmcore).domain(0, stripped).kernel
        assert kernel.image.debug_path == str(target)
        assert kernel.image.symbol_source == "symtab"
        # Code is from the stripped file, symbols are from the other.
        assert kernel.image.section(".text") == Image(modern.vmlinux).section(".text")

    def test_of_another_build(self, modern: SyntheticDump, stripped: Path, tmp_path: Path) -> None:
        data = (modern.directory / "images" / "vmlinux.debug").read_bytes()
        build_id = bytes.fromhex(Image(modern.vmlinux).build_id or "")
        other = data.replace(build_id, bytes(len(build_id)))
        assert other != data
        (stripped.parent / "vmlinux.debug").write_bytes(other)
        domain = xk.open(modern.vmcore).domain(0, stripped)
        image = domain.kernel.image
        assert (image.debug_path, image.symbol_source) == (None, "kallsyms")
        (warning,) = [text for text in domain.warnings if "is not used" in text]
        assert f"{stripped}: its debug file {stripped.parent / 'vmlinux.debug'}" in warning
        assert f"its build id is {bytes(len(build_id)).hex()}, not {build_id.hex()}" in warning

    def test_a_vmlinux_of_another_build(
        self,
        modern: SyntheticDump,
        foreign: SyntheticDump,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """In the place for the build id of the kernel in memory."""
        build_id = Image(modern.vmlinux).build_id
        assert build_id is not None
        monkeypatch.setenv("XKDUMP_DEBUG_PATH", str(tmp_path))
        target = tmp_path / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
        target.parent.mkdir(parents=True)
        shutil.copy(foreign.vmlinux, target)
        # One of another build by its name is what other kernels have.
        shutil.copy(foreign.vmlinux, tmp_path / "vmlinux")
        domain = xk.open(modern.vmcore).domain(0)
        assert domain.kernel.image.is_memory
        (warning,) = [text for text in domain.warnings if "is not used" in text]
        assert warning.startswith(f"{target} is not used: it")
        assert build_id in warning
        shutil.copy(modern.vmlinux, tmp_path / "vmlinux")
        domain = xk.open(modern.vmcore).domain(0)
        assert not domain.kernel.image.is_memory
        assert domain.warnings == []

    @pytest.mark.parametrize("change", [b"", b"more"])
    def test_checksum(self, change: bytes, tmp_path: Path) -> None:
        """A kernel of 2006 has no build id."""
        made = write_dump(tmp_path / "dump", "2006", images=True)
        images = made.directory / "images"
        with (images / "vmlinux.debug").open("ab") as file:
            file.write(change)
        domain = xk.open(made.vmcore).domain(0, images / "vmlinux.stripped")
        image = domain.kernel.image
        assert image.build_id is None
        assert (image.debug_path is None) == bool(change)
        reason = "its checksum is not that in .gnu_debuglink"
        assert any(reason in text for text in domain.warnings) == bool(change)

    def test_hostile_links(self, modern: SyntheticDump, tmp_path: Path) -> None:
        path = tmp_path / "vmlinux"
        data = (modern.directory / "images" / "vmlinux.stripped").read_bytes()
        for name in (b"../debug/xxxx", b"/vmlinux.debu", bytes(13), b"vmlinux.debug"[:12] + b"/"):
            path.write_bytes(data.replace(b"vmlinux.debug", name))
            image = xk.open(modern.vmcore).domain(0, path).kernel.image
            assert image.debug_path is None


class TestDamage:
    """Every damage is an error that says what failed."""

    @pytest.mark.parametrize("name", [*COMPRESSED, *BOOTED])
    def test_cut(self, name: str, modern: SyntheticDump, tmp_path: Path) -> None:
        data = (modern.directory / "images" / name).read_bytes()
        path = tmp_path / name
        for size in (len(data) // 2, len(data) - 0x500 if name in BOOTED else len(data) - 60):
            path.write_bytes(data[:size])
            assert any(word in fails(path, modern) for word in ("cut", "corrupt", "ELF", "bytes"))

    @pytest.mark.parametrize("name", BOOTED)
    def test_flipped(self, name: str, modern: SyntheticDump, tmp_path: Path) -> None:
        """A byte of the stream is another: its checksum shows it. lz4 and our zstd have none."""
        data = bytearray((modern.directory / "images" / name).read_bytes())
        whole = Image(modern.directory / "images" / name)
        start = data.index(
            ENCODERS["xz" if name.endswith("efi") else _compression(name)](b"x" * 64)[:3]
        )
        data[start + 2000] ^= 0xFF
        path = tmp_path / name
        path.write_bytes(data)
        try:
            image = Image(path)
        except xk.DumpError as error:
            text = str(error)
            assert text.startswith(str(path))
        else:
            assert name in ("vmlinuz-lz4", "vmlinuz-zstd")
            assert _contents(image) != _contents(whole)

    def test_one_stream_is_unpacked(self, modern: SyntheticDump, tmp_path: Path) -> None:
        """Of streams that start as kernels the first is taken: others would cost as much again."""
        data = (modern.directory / "images" / "vmlinuz-old").read_bytes()
        code = (data[0x1F1] + 1) * 512
        kernel = modern.vmlinux.read_bytes()
        first = bytearray(bz2.compress(kernel[: 1 << 20]))
        first[-20] ^= 0xFF
        (tmp_path / "vmlinuz").write_bytes(data[:code] + first + data[code:])
        text = fails(tmp_path / "vmlinuz", modern)
        assert f"offset {code:#x}" in text
        assert "bzip2" in text

    def test_a_size_that_is_wrong(self, modern: SyntheticDump, tmp_path: Path) -> None:
        data = bytearray((modern.directory / "images" / "vmlinuz-xz").read_bytes())
        code = (data[0x1F1] + 1) * 512
        offset, length = struct.unpack_from("<II", data, 0x248)
        struct.pack_into("<I", data, code + offset + length - 4, 12345)
        (tmp_path / "vmlinuz").write_bytes(data)
        text = fails(tmp_path / "vmlinuz", modern)
        assert "expected a kernel of 12345 bytes, as the xz stream's end says" in text

    def test_a_payload_beyond_the_file(self, modern: SyntheticDump, tmp_path: Path) -> None:
        data = bytearray((modern.directory / "images" / "vmlinuz-xz").read_bytes())
        struct.pack_into("<II", data, 0x248, 0xFFFF_0000, 0xFFFF_FFFF)
        (tmp_path / "vmlinuz").write_bytes(data)
        assert "the file is cut" in fails(tmp_path / "vmlinuz", modern)

    @pytest.mark.parametrize("name", ENCODERS)
    def test_bomb(self, name: str, modern: SyntheticDump, tmp_path: Path) -> None:
        """A stream that expands without end is given up early."""
        vmlinux = modern.vmlinux.read_bytes()
        (tmp_path / "vmlinux").write_bytes(ENCODERS[name](vmlinux + bytes(48 << 20)))
        size = (tmp_path / "vmlinux").stat().st_size
        if size * 64 + (16 << 20) > 48 << 20:
            pytest.skip("the encoder does not make it small enough")
        assert "expected an intact" in fails(tmp_path / "vmlinux", modern)

    def test_another_machine(self, modern: SyntheticDump, tmp_path: Path) -> None:
        data = bytearray(modern.vmlinux.read_bytes())
        struct.pack_into("<H", data, 18, 183)
        (tmp_path / "vmlinuz").write_bytes(bzimage.write(bytes(data), "gzip"))
        assert "found one for machine 183" in fails(tmp_path / "vmlinuz", modern)

    def test_not_an_elf_file(self, modern: SyntheticDump, tmp_path: Path) -> None:
        """Before 2.6.26 the payload is the memory image of the kernel."""
        (tmp_path / "vmlinuz").write_bytes(bzimage.write(b"\xfc" * 4096, "gzip", version=0x0204))
        text = fails(tmp_path / "vmlinuz", modern)
        assert "expected an ELF file (7f 45 4c 46) compressed by gzip, found fc fc fc fc" in text

    def test_an_unknown_compression(self, modern: SyntheticDump, tmp_path: Path) -> None:
        data = bytearray((modern.directory / "images" / "vmlinuz-xz").read_bytes())
        at = data.index(b"\xfd7zXZ")
        data[at] = 0
        (tmp_path / "vmlinuz").write_bytes(data)
        assert "lz4 or zstd, found 00 37 7a 58" in fails(tmp_path / "vmlinuz", modern)

    def test_a_compressed_dump(self, modern: SyntheticDump, tmp_path: Path) -> None:
        path = tmp_path / "vmcore.gz"
        path.write_bytes(zlib.compress(modern.vmcore.read_bytes()[: 1 << 20], wbits=31))
        text = fails(path, modern)
        assert (
            "an ELF core file, such as a vmcore, compressed by gzip, in place of a vmlinux" in text
        )


def test_several_streams(modern: SyntheticDump, tmp_path: Path) -> None:
    """Programs that compress in parallel write a stream for each part."""
    data = modern.vmlinux.read_bytes()
    for name in ("gzip", "bzip2", "xz", "lz4", "zstd"):
        parts = (data[:20_000], data[20_000:])
        (tmp_path / name).write_bytes(b"".join(map(ENCODERS[name], parts)))
        assert Image(tmp_path / name).section(".text") == Image(modern.vmlinux).section(".text")
