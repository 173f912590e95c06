"""Dumps that are compressed as a whole: read in place, or unpacked into a directory."""

import bz2
import gzip
import lzma
import os
import random
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

import xenkdump_fast as xk
from tests.engine.test_containers import assert_same, machine
from xenkdump_fast._native import ZstdDecoder
from xenkdump_fast.cli import main
from xenkdump_fast.regular_files import open_regular
from xenkdump_fast.session import compression, unpacking
from xenkdump_forge import COMPRESSIONS, SyntheticDump, write_dump
from xenkdump_forge import containers as forge
from xenkdump_forge.containers import kdump, whole

#: What has to be unpacked.
PACKED = ["gzip", "bzip2", "xz", "zstd"]
MAGICS = [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"]
#: Formats that assert_same can compare. LiME and raw images have no notes.
FORMATS = ["elf", "kdump-zlib", "flattened", "flattened-kdump", "lime"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small machine's memory in each format."""
    folder = tmp_path_factory.mktemp("formats")
    core = machine()
    for name in [*FORMATS, "raw"]:
        forge.write(core, folder / name, name)
    return folder


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("synthetic"), like="modern", memory=64 << 20)


@pytest.fixture(scope="module", params=COMPRESSIONS)
def compressed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> SyntheticDump:
    folder = tmp_path_factory.mktemp(request.param)
    return write_dump(folder, like="modern", memory=64 << 20, compress=request.param)


_known: dict[tuple[Path, str], bytes] = {}


def packed(source: Path, target: Path, name: str) -> Path:
    """A compressed copy, under a name that says nothing."""
    if (source, name) not in _known:
        target.write_bytes(source.read_bytes())
        whole.compress(target, name)
        _known[source, name] = target.read_bytes()
    target.write_bytes(_known[source, name])
    return target


def unpacked(cache: Path) -> list[str]:
    return sorted(os.listdir(cache)) if cache.exists() else []


#: Each format in place, and each compression.
PAIRS = [(name, "zstd-seekable") for name in FORMATS] + [
    ("flattened", "gzip"),
    ("kdump-zlib", "bzip2"),
    ("elf", "xz"),
    ("lime", "zstd"),
    ("flattened-kdump", "zstd"),
]


@pytest.mark.parametrize(("format_", "name"), PAIRS)
def test_memory(format_: str, name: str, files: Path, tmp_path: Path) -> None:
    path = packed(files / format_, tmp_path / "dump", name)
    reference = xk.open(files / "elf").machine
    dump = xk.open(path, cache_dir=tmp_path / "cache", cache_size=4 << 20)
    assert dump.warnings == []
    assert_same(dump.machine, reference)
    assert [note.kind for note in dump.notes] == [
        note.kind for note in xk.open(files / format_).notes
    ]
    in_place = name == "zstd-seekable"
    assert dump.native.format.startswith("zstd-compressed ") == in_place
    assert bool(unpacked(tmp_path / "cache")) != in_place


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_raw_images(name: str, files: Path, tmp_path: Path) -> None:
    path = packed(files / "raw", tmp_path / "dump", name)
    dump = xk.open(path, format="raw", cache_dir=tmp_path / "cache")
    plain = xk.open(files / "raw", format="raw").machine
    assert dump.machine.read(0, 12 << 20) == plain.read(0, 12 << 20)


def test_a_raw_image_that_only_starts_like_a_compressed_file(tmp_path: Path) -> None:
    for magic in MAGICS:
        data = magic + b"\xff" * (8192 - len(magic))
        (tmp_path / "raw").write_bytes(data)
        assert xk.open(tmp_path / "raw", format="raw").machine.read(0, 8192) == data


@pytest.mark.parametrize("command", ["bt", "sys", "notes", "domains"])
def test_commands(
    command: str,
    synthetic: SyntheticDump,
    compressed: SyntheticDump,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vmlinux = [str(synthetic.vmlinux)] if command in ("bt", "sys") else []
    shown = []
    monkeypatch.chdir(synthetic.directory)
    assert main([command, *vmlinux, "vmcore"]) == 0
    shown.append(capsys.readouterr())
    monkeypatch.chdir(compressed.directory)
    assert main([command, "--cache-dir", "cache", *vmlinux, "vmcore"]) == 0
    shown.append(capsys.readouterr())
    monkeypatch.setenv("XKDUMP_CACHE_DIR", "cache")
    # A vmlinux and a dump in the wrong order are told apart by what the dump contains.
    assert main([command, "vmcore", *vmlinux]) == 0
    assert capsys.readouterr().out == shown[0].out
    assert shown[0] == shown[1]


def test_parts_of_a_split_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    core = machine()
    paths = [tmp_path / name for name in ("a", "b", "c")]
    kdump.write(core, paths)
    reference = xk.open(paths)
    for path, name in zip(paths, ("gzip", "zstd-seekable", "xz"), strict=True):
        whole.compress(path, name)
    cache = str(tmp_path / "cache")
    dump = xk.open(paths, cache_dir=cache)
    assert dump.warnings == reference.warnings == []
    assert_same(dump.machine, xk.open(paths, cache_dir=cache).machine)
    # The command knows that the other files are parts, too.
    assert main(["notes", "--cache-dir", cache, *map(str, paths)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", PACKED)
def test_without_consent_nothing_is_unpacked(
    name: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = packed(files / "elf", tmp_path / "a dump", name)
    assert main(["notes", str(path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path}: compressed by {name}" in err
    assert "--cache-dir DIR" in err
    command = {
        "gzip": "gzip -dc",
        "bzip2": "bzip2 -dc",
        "xz": "xz -dc",
        "zstd": "zstd -dc --long=31",
    }[name]
    assert f"{command} '{path}'" in err
    # Of these only xz says how large the contents are.
    assert ("at least 9." in err) == (name == "xz")
    assert os.listdir(tmp_path) == ["a dump"]


def test_the_size_in_a_frame_of_zstd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(zstandard.compress(bytes(20 << 20)))
    assert main(["notes", str(tmp_path / "file")]) == 3
    err = capsys.readouterr().err
    assert "a frame of 20971520 bytes, and at most 8388608 are read in place" in err
    assert "at least 20.0 MiB" in err


def frame_with_window(contents: bytes, log: int) -> bytes:
    """A frame of zstd with a window of ``2**log`` bytes, in blocks that are not compressed."""
    parts = [b"\x28\xb5\x2f\xfd\0", bytes([log - 10 << 3])]
    for at in range(0, len(contents), 128 << 10):
        block = contents[at : at + (128 << 10)]
        is_last = at + len(block) == len(contents)
        parts += (len(block) << 3 | is_last).to_bytes(3, "little"), block
    return b"".join(parts)


@pytest.mark.parametrize("log", [27, 31])
def test_a_large_window(log: int, files: Path, tmp_path: Path) -> None:
    """As of ``zstd --long=31``."""
    contents = (files / "elf").read_bytes()
    (tmp_path / "dump").write_bytes(frame_with_window(contents, log))
    dump = xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")
    assert dump.warnings == []
    (name,) = unpacked(tmp_path / "cache")
    assert (tmp_path / "cache" / name).read_bytes() == contents


def test_a_window_beyond_all(files: Path, tmp_path: Path) -> None:
    contents = (files / "elf").read_bytes()
    (tmp_path / "dump").write_bytes(frame_with_window(contents, 32))
    with pytest.raises(xk.DumpError, match=r"too much memory.*: zstd -dc --long=31 .*/dump"):
        xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")


class TestDirectory:
    """The directory, and what is in it."""

    def test_only_the_owner_can_read_it(self, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", "gzip")
        xk.open(path, cache_dir=tmp_path / "cache")
        (name,) = unpacked(tmp_path / "cache")
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
        file = tmp_path / "cache" / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_bytes() == (files / "elf").read_bytes()

    def test_those_above_it_are_not_created(
        self, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mistyped name is an error, and nothing is unpacked there."""
        path = packed(files / "elf", tmp_path / "dump", "gzip")
        monkeypatch.chdir(tmp_path)
        for name in ("typo/a b", str(tmp_path / "typo" / "a b"), "typo/a b/"):
            with pytest.raises(xk.DumpError, match=r"typo does not exist.*: mkdir -p '.*a b/?'"):
                xk.open(path, cache_dir=name)
        assert not (tmp_path / "typo").exists()
        xk.open(path, cache_dir="relative/")
        assert len(unpacked(tmp_path / "relative")) == 1

    @pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
    def test_others_must_not_write_to_it(self, mode: int, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", "gzip")
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(mode)
        with pytest.raises(xk.DumpError, match="chmod go-w"):
            xk.open(path, cache_dir=tmp_path / "cache")
        assert unpacked(tmp_path / "cache") == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_it_must_be_the_users(self, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", "gzip")
        (tmp_path / "cache").mkdir(mode=0o700)
        os.chown(tmp_path / "cache", 1, 1)
        with pytest.raises(xk.DumpError, match="another user"):
            xk.open(path, cache_dir=tmp_path / "cache")

    def test_a_link_in_place_of_the_file_is_not_followed(self, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", "gzip")
        cache = tmp_path / "cache"
        xk.open(path, cache_dir=cache)
        (name,) = unpacked(cache)
        (cache / name).rename(tmp_path / "elsewhere")
        (cache / name.replace(".dump", ".part")).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="symbolic link"):
            xk.open(path, cache_dir=cache)

    def test_zeros_are_holes(self, tmp_path: Path) -> None:
        core = machine()
        core.memory.frames = {5: bytearray(b"x" * 4096), 900: bytearray(b"y" * 4096)}
        core.write(tmp_path / "dump")
        whole.compress(tmp_path / "dump", "gzip")
        dump = xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")
        assert dump.machine.read(5 * 4096, 2) == b"xx"
        (name,) = unpacked(tmp_path / "cache")
        found = (tmp_path / "cache" / name).stat()
        assert found.st_size > 9 << 20
        assert found.st_blocks * 512 < 256 << 10

    def test_it_is_unpacked_once(
        self, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = packed(files / "elf", tmp_path / "dump", "gzip")
        xk.open(path, cache_dir=tmp_path / "cache")
        monkeypatch.setattr(unpacking, "Stream", None)
        xk.open(path, cache_dir=tmp_path / "cache")

    def test_a_changed_file_is_unpacked_again(self, files: Path, tmp_path: Path) -> None:
        """Even one with the same size and the same time of modification."""
        cache = tmp_path / "cache"
        core = machine()
        path = tmp_path / "dump"
        for fill in (b"a", b"b"):
            core.memory.frames = {7: bytearray(fill * 4096)}
            core.write(tmp_path / "plain")
            path.write_bytes(gzip.compress((tmp_path / "plain").read_bytes(), mtime=0))
            os.utime(path, (1, 1))
            assert xk.open(path, cache_dir=cache).machine.read(7 * 4096, 1) == fill
        assert len(unpacked(cache)) == 2
        path.write_bytes(path.read_bytes())
        os.utime(path, (1, 1))
        xk.open(path, cache_dir=cache)
        assert len(unpacked(cache)) == 3

    def test_the_name_has_no_special_characters(self, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "-a\n\x1b[31mdump", "gzip")
        xk.open(path, cache_dir=tmp_path / "cache")
        (name,) = unpacked(tmp_path / "cache")
        assert name.startswith("a__")
        assert name.isascii()
        assert name.isprintable()

    def test_threads_and_processes_do_not_collide(self, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", "bzip2")
        cache = tmp_path / "cache"
        expected = xk.open(files / "elf").machine.read(0x200000, 4096)
        found: list[bytes] = []

        def work() -> None:
            found.append(xk.open(path, cache_dir=cache).machine.read(0x200000, 4096))

        program = (
            "import sys, xenkdump_fast as xk; "
            "dump = xk.open(sys.argv[1], cache_dir=sys.argv[2]); "
            "sys.stdout.buffer.write(dump.machine.read(0x200000, 4096))"
        )
        command = [sys.executable, "-c", program, str(path), str(cache)]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found += [process.communicate()[0] for process in processes]
        assert found == [expected] * 6
        assert len(unpacked(cache)) == 1

    def test_what_a_killed_process_left_is_overwritten(self, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", "gzip")
        cache = tmp_path / "cache"
        xk.open(path, cache_dir=cache)
        (name,) = unpacked(cache)
        (cache / name).rename(cache / name.replace(".dump", ".part"))
        with (cache / name.replace(".dump", ".part")).open("ab") as file:
            file.write(b"junk" * 1000)
        dump = xk.open(path, cache_dir=cache)
        assert unpacked(cache) == [name]
        assert (cache / name).stat().st_size == (files / "elf").stat().st_size
        assert dump.warnings == []


class TestStops:
    """Unpacking that ends early leaves nothing behind."""

    @pytest.fixture
    def path(self, files: Path, tmp_path: Path) -> Iterator[Path]:
        yield packed(files / "elf", tmp_path / "dump", "gzip")
        assert unpacked(tmp_path / "cache") == []

    def test_no_space(self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(unpacking, "_free", lambda fd: unpacking.MIN_FREE_SPACE)
        with pytest.raises(xk.DumpError, match=r"512\.0 MiB of free space"):
            xk.open(path, cache_dir=tmp_path / "cache")

    def test_space_that_runs_out(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = iter([1 << 40, 1 << 40, 1 << 20])
        monkeypatch.setattr(unpacking, "_CHECK_EVERY", 1 << 20)
        monkeypatch.setattr(unpacking, "_free", lambda fd: next(free))
        with pytest.raises(xk.DumpError, match="unpacking stopped"):
            xk.open(path, cache_dir=tmp_path / "cache")

    def test_a_file_that_expands_without_end(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(unpacking, "MAX_UNPACKED_SMALL", 5 << 20)
        monkeypatch.setattr(unpacking, "MAX_UNPACKED_RATIO", 1)
        with pytest.raises(xk.DumpError, match=r"more than 5\.0 MiB are not unpacked.*gzip -dc"):
            xk.open(path, cache_dir=tmp_path / "cache")

    def test_ctrl_c(self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(unpacking, "_write", interrupt)
        assert main(["notes", "--cache-dir", str(tmp_path / "cache"), str(path)]) == 130

    def test_a_full_disk(
        self,
        path: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", fail)
        assert main(["notes", "--cache-dir", str(tmp_path / "cache"), str(path)]) == 3
        err = capsys.readouterr().err
        assert str(tmp_path / "cache") in err
        assert "No space left on device" in err

    def test_a_limit_on_the_size_of_files(self, path: Path, tmp_path: Path) -> None:
        program = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
            "from xenkdump_fast.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        arguments = ["notes", "--cache-dir", str(tmp_path / "cache"), str(path)]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 3
        assert "File too large" in done.stderr

    def test_a_file_that_changes(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = unpacking._write

        def change(fd: int, data: bytes, offset: int) -> int:
            os.utime(path, (1, 1))
            return write(fd, data, offset)

        monkeypatch.setattr(unpacking, "_write", change)
        with pytest.raises(xk.DumpError, match="changed while it was unpacked"):
            xk.open(path, cache_dir=tmp_path / "cache")

    @pytest.mark.parametrize("magic", MAGICS)
    def test_nothing_can_be_unpacked(self, magic: bytes, path: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(magic + b"\xff" * 100)
        with pytest.raises(xk.DumpError, match="nothing can be unpacked from it: "):
            xk.open(tmp_path / "file", cache_dir=tmp_path / "cache")


class TestDamage:
    """Files that are cut or corrupt: what is before is read, with a warning."""

    @pytest.mark.parametrize("name", PACKED)
    def test_cut(self, name: str, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", name)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size * 3 // 4)
        plain = (files / "elf").read_bytes()
        for _ in range(2):  # also when it is opened again
            dump = xk.open(path, cache_dir=tmp_path / "cache")
            (found,) = unpacked(tmp_path / "cache")
            data = (tmp_path / "cache" / found).read_bytes()
            assert len(plain) // 4 < len(data) < len(plain)
            assert plain.startswith(data)
            assert any(
                f"the {name} file is cut: {len(data)} bytes were unpacked" in text
                for text in dump.warnings
            )

    @pytest.mark.parametrize("name", PACKED)
    def test_corrupt(self, name: str, files: Path, tmp_path: Path) -> None:
        path = packed(files / "elf", tmp_path / "dump", name)
        data = bytearray(path.read_bytes())
        at = len(data) * 3 // 4
        data[at : at + 64] = os.urandom(64)
        path.write_bytes(data)
        dump = xk.open(path, cache_dir=tmp_path / "cache")
        if name == "zstd":
            # Raw blocks without a checksum: nothing shows it but what is in the blocks.
            return
        assert any(f"the {name} file is damaged" in text for text in dump.warnings)

    def test_a_wrong_checksum(self, files: Path, tmp_path: Path) -> None:
        plain = (files / "elf").read_bytes()
        frame = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
        for data in (gzip.compress(plain)[:-8] + bytes(8), frame.compress(plain)[:-4] + bytes(4)):
            (tmp_path / "dump").write_bytes(data)
            dump = xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")
            assert any("file is damaged" in text for text in dump.warnings)

    @pytest.mark.parametrize(
        "pack",
        [
            gzip.compress,
            bz2.compress,
            lzma.compress,
            zstandard.ZstdCompressor(write_content_size=False).compress,
        ],
    )
    def test_several_streams(
        self, pack: Callable[[bytes], bytes], files: Path, tmp_path: Path
    ) -> None:
        plain = (files / "elf").read_bytes()
        middle = len(plain) // 2 + 77
        data = pack(plain[:middle]) + pack(plain[middle:])
        (tmp_path / "dump").write_bytes(data)
        dump = xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")
        assert dump.warnings == []
        assert_same(dump.machine, xk.open(files / "elf").machine)

    @pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
    def test_what_follows_the_last_stream(
        self, pack: Callable[[bytes], bytes], files: Path, tmp_path: Path
    ) -> None:
        data = pack((files / "elf").read_bytes())
        for rest, problem in ((bytes(70000), False), (b"other data", True)):
            (tmp_path / "dump").write_bytes(data + rest)
            dump = xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")
            assert bool(dump.warnings) == problem
            assert_same(dump.machine, xk.open(files / "elf").machine)

    @pytest.mark.parametrize("name", PACKED)
    def test_random_changes(self, name: str, tmp_path: Path) -> None:
        """A changed byte gives an error, a warning, or the same contents."""
        chance = random.Random(name)
        core = machine()
        core.memory.frames = dict(list(core.memory.frames.items())[:40])
        core.touched_only = True
        core.write(tmp_path / "plain")
        path = packed(tmp_path / "plain", tmp_path / "dump", name)
        sound = path.read_bytes()
        for _ in range(60):
            data = bytearray(sound)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            try:
                dump = xk.open(path, cache_dir=tmp_path / "cache")
            except (xk.DumpError, OSError):
                continue
            names = unpacked(tmp_path / "cache")
            assert names == [n for n in names if not n.endswith(".part")]
            if name != "zstd" and not dump.warnings:
                (found,) = names
                result = (tmp_path / "cache" / found).read_bytes()
                assert result == (tmp_path / "plain").read_bytes()
            for file in names:
                (tmp_path / "cache" / file).unlink()


class TestInPlace:
    """zstd files whose frames are decompressed one by one."""

    SIZE = 300_000

    def seekable(
        self, plain: bytes, *, checksums: bool = False, sizes: bool = False, table: bool = True
    ) -> tuple[bytes, list[tuple[int, int]]]:
        # The checksum in a frame is the least significant half of XXH64 of its contents, as in the
        # table.
        packer = zstandard.ZstdCompressor(write_checksum=True, write_content_size=sizes)
        frames = [
            packer.compress(plain[at : at + self.SIZE]) for at in range(0, len(plain), self.SIZE)
        ]
        lengths = [min(self.SIZE, len(plain) - at) for at in range(0, len(plain), self.SIZE)]
        entries = list(zip(map(len, frames), lengths, strict=True))
        hashes = [int.from_bytes(frame[-4:], "little") for frame in frames] if checksums else None
        if checksums:
            # Without those in the frames.
            frames = [
                zstandard.ZstdCompressor(write_content_size=False).compress(
                    plain[at : at + self.SIZE]
                )
                for at in range(0, len(plain), self.SIZE)
            ]
            entries = list(zip(map(len, frames), lengths, strict=True))
        data = b"".join(frames)
        return (data + whole.seek_table(entries, hashes) if table else data), entries

    @pytest.mark.parametrize("cache_size", [0, 1 << 20, None])
    @pytest.mark.parametrize("checksums", [False, True])
    def test_a_seek_table(
        self, checksums: bool, cache_size: int | None, files: Path, tmp_path: Path
    ) -> None:
        data, _ = self.seekable((files / "elf").read_bytes(), checksums=checksums)
        (tmp_path / "dump").write_bytes(data)
        dump = xk.open(tmp_path / "dump", cache_size=cache_size)
        assert dump.native.format == "zstd-compressed ELF64 vmcore"
        assert_same(dump.machine, xk.open(files / "elf").machine)

    def test_frames_with_sizes(self, files: Path, tmp_path: Path) -> None:
        plain = (files / "kdump-zlib").read_bytes()
        data, entries = self.seekable(plain, sizes=True, table=False)
        skippable = struct.pack("<2I4x", 0x184D2A50, 4)
        # Skippable frames before, between and after the others.
        first = entries[0][0]
        data = skippable + data[:first] + skippable + data[first:] + skippable
        (tmp_path / "dump").write_bytes(data)
        dump = xk.open(tmp_path / "dump")
        assert_same(dump.machine, xk.open(files / "elf").machine)

    def test_damage(self, files: Path, tmp_path: Path) -> None:
        """Only the memory in a damaged frame is lost."""
        for checksums in (False, True):
            data, entries = self.seekable((files / "elf").read_bytes(), checksums=checksums)
            damaged = bytearray(data)
            at = sum(size for size, _ in entries[:5]) + entries[5][0] // 2
            damaged[at : at + 16] = bytes(b ^ 0x5A for b in data[at : at + 16])
            (tmp_path / "dump").write_bytes(damaged)
            dump = xk.open(tmp_path / "dump")
            reference = xk.open(files / "elf")
            assert_same_or_fault(dump, reference, lost=range(5 * self.SIZE, 6 * self.SIZE))
            assert dump.machine.read(0, 100) == reference.machine.read(0, 100)

    def test_wrong_checksums_in_the_table(self, files: Path, tmp_path: Path) -> None:
        plain = (files / "elf").read_bytes()
        data, entries = self.seekable(plain)
        frames = data[: sum(size for size, _ in entries)]
        (tmp_path / "dump").write_bytes(
            frames + whole.seek_table(entries, [0x12345678] * len(entries))
        )
        with pytest.raises(xk.DumpError):
            xk.open(tmp_path / "dump")

    def test_tables_that_lie(self, files: Path, tmp_path: Path) -> None:
        """Wrong sizes are noticed when the file is opened, or when a frame is read."""
        plain = (files / "elf").read_bytes()
        data, entries = self.seekable(plain)
        frames = data[: sum(size for size, _ in entries)]
        (a, size), (b, _) = entries[3], entries[4]
        lies = {
            "a frame too many": [*entries, (10, 10)],
            "a frame too few": entries[:-1],
            "other borders": [*entries[:3], (a + 5, size), (b - 5, size), *entries[5:]],
            "other sizes": [*entries[:3], (a, size + 8), (b, size - 8), *entries[5:]],
            "huge contents": [*entries[:3], (a, 0xFFFFFFFF), *entries[4:]],
            "a huge frame": [*entries[:3], (0xFFFFFFFF, size), *entries[4:]],
        }
        reference = xk.open(files / "elf")
        problems: list[str] = []
        for lie in lies.values():
            (tmp_path / "dump").write_bytes(frames + whole.seek_table(lie))
            try:
                dump = xk.open(tmp_path / "dump")
            except xk.DumpError as error:
                problems.append(str(error))
                # It can still be unpacked.
                dump = xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")
                assert_same(dump.machine, reference.machine)
            else:
                lost = range(3 * self.SIZE, 5 * self.SIZE)
                assert_same_or_fault(dump, reference, lost=lost)
        assert problems
        assert all("cannot be read in place" in problem for problem in problems)

    def test_a_cut_file_has_to_be_unpacked(self, files: Path, tmp_path: Path) -> None:
        data, _ = self.seekable((files / "elf").read_bytes())
        (tmp_path / "dump").write_bytes(data[: len(data) // 2])
        with pytest.raises(xk.DumpError, match="cannot be read in place"):
            xk.open(tmp_path / "dump")
        dump = xk.open(tmp_path / "dump", cache_dir=tmp_path / "cache")
        assert any("the zstd file is cut" in text for text in dump.warnings)


def assert_same_or_fault(dump: xk.Dump, reference: xk.Dump, lost: range) -> None:
    """Each page is the same as in the reference, or, in a range of offsets, cannot be read."""
    faults: list[str] = []
    for (start, size, _), offset in zip(
        reference.native.segments, offsets(reference.path), strict=True
    ):
        for at in range(0, size - 4096, 4096):
            expected = reference.machine.read(start + at, 4096)
            where = offset + at
            may_be_lost = where + 4096 > lost.start and where < lost.stop
            try:
                found = dump.machine.read(start + at, 4096)
            except xk.MemoryFault as fault:
                faults.append(str(fault))
                found = expected if may_be_lost else b""
            assert found == expected
    assert faults
    assert all("is corrupt (" in fault for fault in faults)


def offsets(path: str) -> list[int]:
    """The file offsets of the PT_LOAD segments of a 64-bit ELF file."""
    data = Path(path).read_bytes()
    start, size, count = struct.unpack_from("<Q14x2H", data, 32)
    headers = [struct.unpack_from("<IIQ", data, start + i * size) for i in range(count)]
    return [offset for kind, _, offset in headers if kind == 1]


def test_the_decoder_of_zstd() -> None:
    decoder = ZstdDecoder()
    data = zstandard.compress(b"abc" * 1000)
    taken, out = decoder.decode(data[:10], 100)
    assert taken == 10
    assert not decoder.at_end
    rest = data[10:]
    while not decoder.at_end:
        taken, piece = decoder.decode(rest, 1000)
        rest, out = rest[taken:], out + piece
    assert out == b"abc" * 1000
    with pytest.raises(ValueError, match=r".+"):
        ZstdDecoder().decode(b"nonsense", 10)


def test_sizes_of_xz(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(lzma.compress(bytes(3_000_000)))
    with open_regular(str(tmp_path / "file")) as file:
        xz = compression.by_magic(b"\xfd7zXZ\0")
        assert xz is not None
        assert compression.contents_size(file, xz) == 3_000_000
    data = bytearray((tmp_path / "file").read_bytes())
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        (tmp_path / "file").write_bytes(broken)
        with open_regular(str(tmp_path / "file")) as file:
            size = compression.contents_size(file, xz)
            assert size is None or 0 <= size < 1 << 63
