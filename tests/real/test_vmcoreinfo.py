"""Real dumps whose VMCOREINFO is wrong, truncated, missing or another boot's.

The kernel is found as with the true note, and a warning names the claim that was rejected.
"""

import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

import xenkdump_fast as xk
from xenkdump_fast import cli
from xenkdump_fast._native import Image
from xenkdump_fast.linux.backtrace import Trace

from . import dump_core
from .copies import PAGE, PT_LOAD, Copy, Note

pytestmark = pytest.mark.real


class Whole(NamedTuple):
    """A dump with KASLR, and what is right."""

    copy: Copy
    vmlinux: str
    text: bytes
    slide: int
    phys_base: int
    root: int
    traces: dict[int, Trace]

    def notes(self, *texts: bytes) -> str:
        """The path of the copy with these notes VMCOREINFO."""
        notes = [Note(b"VMCOREINFO", 0, text) for text in texts]
        return self.copy.with_notes(*self.copy.cpus, *notes)

    def open(self, *texts: bytes, **given: int | str) -> xk.Domain:
        return xk.open(self.notes(*texts)).domain(0, self.vmlinux, **given)  # type: ignore[arg-type]

    def with_fact(self, key: str, value: str) -> bytes:
        """The text with another value."""
        return re.sub(rf"(?<={re.escape(key)}=)\S+".encode(), value.encode(), self.text)

    @property
    def found(self) -> str:
        return f"the kernel was found at KASLR offset {self.slide:#x}"


def traces(domain: xk.Domain) -> dict[int, Trace]:
    return {task.address: domain.kernel.backtrace(task) for task in domain.kernel.tasks()}


def shape(trace: Trace) -> list[tuple[int, int, str | None, bool]]:
    """The frames without registers."""
    return [(frame.pc, frame.sp, frame.symbol, frame.guess) for frame in trace.frames]


@pytest.fixture(scope="module")
def whole(
    dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Whole]:
    path = tmp_path_factory.mktemp("vmcoreinfo") / "vmcore"
    source = dump_file("bare-x86_64/vmcore")
    shutil.copyfile(source, path)
    vmlinux = dump_file("vmlinux-6.1.0-56-amd64")
    copy = Copy(path)
    (text,) = (note.desc for note in copy.others if note.name == b"VMCOREINFO")
    facts = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
    slide, phys_base = int(facts["KERNELOFFSET"], 16), int(facts["NUMBER(phys_base)"])
    assert slide
    assert phys_base
    domain = xk.open(source).domain(0, vmlinux)
    root = domain.kernel.location.root
    yield Whole(copy, vmlinux, text, slide, phys_base, root, traces(domain))
    path.unlink()


def check(whole: Whole, domain: xk.Domain, *warnings: str) -> None:
    assert domain.kernel.location.slide == whole.slide
    assert traces(domain) == whole.traces
    assert domain.warnings == list(warnings)


class TestNotes:
    """What the notes claim."""

    @pytest.mark.parametrize("offset", [0, 0x2A00_0000, 0x3000_0000])
    def test_a_wrong_offset(self, whole: Whole, offset: int) -> None:
        domain = whole.open(whole.with_fact("KERNELOFFSET", f"{offset:x}"))
        check(whole, domain, f"VMCOREINFO note 0 claims KASLR offset {offset:#x}; {whole.found}")

    def test_a_wrong_phys_base(self, whole: Whole) -> None:
        domain = whole.open(whole.with_fact("NUMBER(phys_base)", "0"))
        claim = "VMCOREINFO note 0 claims phys_base 0x0"
        check(whole, domain, f"{claim}; the kernel was found at phys_base {whole.phys_base:#x}")

    @pytest.mark.parametrize("size", [200, 40])
    def test_a_truncated_text(self, whole: Whole, size: int) -> None:
        domain = whole.open(whole.text[:size])
        check(whole, domain, f"VMCOREINFO note 0 has no KERNELOFFSET; {whole.found}")
        # Memory has the rest.
        assert "KERNELOFFSET" in domain.kernel.vmcoreinfo

    def test_a_release_only(self, whole: Whole) -> None:
        domain = whole.open(b"OSRELEASE=6.1.0-56-amd64\nPAGESIZE=4096\n")
        check(whole, domain, f"VMCOREINFO note 0 has no KERNELOFFSET; {whole.found}")

    def test_two_notes(self, whole: Whole) -> None:
        """A capture kernel has a note of its own."""
        other = whole.with_fact("KERNELOFFSET", "3000000")
        warning = f"VMCOREINFO note 0 claims KASLR offset 0x3000000; {whole.found}"
        check(whole, whole.open(other, whole.text), warning)
        check(whole, whole.open(whole.text, other))

    @pytest.mark.parametrize(
        "change",
        [
            lambda _: b"",
            lambda text: text.replace(b"\n", b"\r\n"),
            lambda text: text.rstrip(b"\n"),
            lambda text: text + bytes(4096 - len(text)),
        ],
        ids=["empty", "crlf", "no-end", "nul-padded"],
    )
    def test_harmless_changes(self, whole: Whole, change: Callable[[bytes], bytes]) -> None:
        check(whole, whole.open(change(whole.text)))

    @pytest.mark.parametrize(
        ("key", "value"), [("OSRELEASE", "5.10.0-1-amd64"), ("BUILD-ID", "00ff")]
    )
    def test_the_text_of_another_kernel(self, whole: Whole, key: str, value: str) -> None:
        """Its offset is right, so its layouts could be taken for the kernel's."""
        domain = whole.open(whole.with_fact(key, value))
        assert domain.kernel.location.facts == {}
        assert domain.kernel.vmcoreinfo["OSRELEASE"] == "6.1.0-56-amd64"
        (warning,) = domain.warnings
        assert warning.startswith(f"VMCOREINFO note 0 is not used: its {key} is {value}, ")


def unused(copy: Copy, *distances: int) -> int:
    """The lowest address at which, and at these distances from it, the dump has a page of zeros."""
    (low, *_) = sorted(segment.address for segment in copy.segments if segment.kind == PT_LOAD)
    with copy.path.open("rb") as file:
        for page in range(low + PAGE - low % PAGE, 1 << 32, PAGE):
            with suppress(StopIteration):
                offsets = [copy.offset(page + distance) for distance in (0, *distances)]
                if not any(any(os.pread(file.fileno(), PAGE, at)) for at in offsets):
                    return page
    raise AssertionError("no page is unused")


def rewrite(copy: Copy, changes: Mapping[int, bytes]) -> dict[int, bytes]:
    """Writes to physical addresses, and returns what was there."""
    return {at: copy.write(copy.offset(at), data) for at, data in changes.items()}


class TestMemory:
    """What memory has, if no note leads to the kernel."""

    @pytest.fixture
    def texts(self, whole: Whole) -> dict[int, bytes]:
        """The start of each text of VMCOREINFO in memory, by physical address."""
        machine = xk.open(whole.copy.path).machine
        return {at: machine.read(at, 10) for at in machine.find(b"OSRELEASE=6.1", 0, 1 << 64)}

    def test_the_text_of_a_previous_boot(self, whole: Whole, texts: dict[int, bytes]) -> None:
        stale = whole.with_fact("KERNELOFFSET", "3000000")
        page = unused(whole.copy)
        assert page < min(texts)
        old = rewrite(whole.copy, {page: stale.ljust(PAGE, b"\0")})
        try:
            check(whole, whole.open())
        finally:
            rewrite(whole.copy, old)

    def test_no_text(self, whole: Whole, texts: dict[int, bytes]) -> None:
        """The image is found by its banner."""
        old = rewrite(whole.copy, dict.fromkeys(texts, bytes(10)))
        try:
            domain = whole.open()
            assert domain.kernel.vmcoreinfo == {}
            check(whole, domain)
        finally:
            rewrite(whole.copy, old)

    @pytest.mark.parametrize("registers", [True, False])
    def test_the_kernel_of_a_previous_boot(
        self, whole: Whole, texts: dict[int, bytes], *, registers: bool
    ) -> None:
        """Its page tables and its banner are intact, and lie before those of the kernel."""
        kernel = whole.open(whole.text).kernel
        slide, symbols = 0x300_0000, kernel.symbols
        banner = symbols["linux_banner"] - whole.slide + slide
        linked = symbols["init_top_pgt"] - symbols["linux_banner"] // PAGE * PAGE
        page = unused(whole.copy, PAGE, 2 * PAGE, 3 * PAGE, linked)
        frames = [page + linked, *(page + (i + 1) * PAGE for i in range(3)), page]
        changes = dict.fromkeys(texts, bytes(10))
        changes[page + banner % PAGE] = kernel.data(symbols["linux_banner"], 256)
        for table, frame, shift in zip(frames[:-1], frames[1:], (39, 30, 21, 12), strict=True):
            changes[table + (banner >> shift) % 512 * 8] = struct.pack("<Q", frame | 0x63)
        assert page < kernel.virtual.translate(symbols["linux_banner"])
        old = rewrite(whole.copy, changes)
        try:
            path = whole.notes() if registers else whole.copy.with_notes()
            domain = xk.open(path).domain(0, whole.vmlinux)
            if registers:
                check(whole, domain)
            else:
                # Nothing tells which of them ran last.
                warning = "cannot verify that the kernel at KASLR offset "
                assert sum(text.startswith(warning) for text in domain.warnings) == 1
        finally:
            rewrite(whole.copy, old)


class TestGiven:
    """What the user says, as options and as arguments."""

    def test_right_numbers(self, whole: Whole, tmp_path: Path) -> None:
        wrong = whole.with_fact("KERNELOFFSET", "3000000")
        offset, phys_base = whole.slide, whole.phys_base
        file = tmp_path / "vmcoreinfo"
        file.write_bytes(whole.text)
        check(whole, whole.open(wrong, kaslr_offset=offset, phys_base=phys_base))
        check(whole, whole.open(wrong, vmcoreinfo=str(file)))
        # The note has the other number.
        check(whole, whole.open(wrong, kaslr_offset=offset))
        file.write_bytes(wrong)
        check(whole, whole.open(wrong, vmcoreinfo=str(file), kaslr_offset=offset))

    def test_wrong_numbers(self, whole: Whole, tmp_path: Path) -> None:
        file = tmp_path / "vmcoreinfo"
        file.write_bytes(whole.with_fact("KERNELOFFSET", "3000000"))
        claim = "claims KASLR offset 0x3000000"
        domain = whole.open(whole.text, vmcoreinfo=str(file))
        check(whole, domain, f"the given VMCOREINFO {file} {claim}; {whole.found}")
        domain = whole.open(whole.text, kaslr_offset=0x300_0000)
        check(whole, domain, f"the given KASLR offset {claim}; {whole.found}")
        domain = whole.open(whole.text, phys_base=4096)
        found = f"the kernel was found at phys_base {whole.phys_base:#x}"
        check(whole, domain, f"the given phys_base claims phys_base 0x1000; {found}")

    def test_force(self, whole: Whole) -> None:
        domain = whole.open(whole.text, kaslr_offset=0x300_0000, force=True)
        assert domain.kernel.location.slide == 0x300_0000
        assert any(
            "forced, it is used at KASLR offset 0x3000000" in text for text in domain.warnings
        )
        check(whole, whole.open(whole.text, kaslr_offset=whole.slide, force=True))

    def test_not_numbers(self, whole: Whole, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not a KASLR offset"):
            whole.open(whole.text, kaslr_offset=-1)
        with pytest.raises(ValueError, match="not a phys_base"):
            whole.open(whole.text, phys_base=1 << 63)
        file = tmp_path / "other"
        file.write_bytes(b"\x7fELF")
        with pytest.raises(xk.DumpError, match="other: not VMCOREINFO"):
            whole.open(whole.text, vmcoreinfo=str(file))

    def test_options(self, whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
        path = whole.notes(whole.with_fact("KERNELOFFSET", "3000000"))
        given = [f"--kaslr-offset={whole.slide:#x}", f"--phys-base={whole.phys_base}"]
        assert cli.main(["sys", whole.vmlinux, path, *given]) == 0
        out, err = capsys.readouterr()
        assert "RELEASE: 6.1.0-56-amd64" in out
        assert err == ""
        assert cli.main(["sys", whole.vmlinux, path, "--kaslr-offset=5000000"]) == 0
        assert "the given KASLR offset claims KASLR offset 0x5000000" in capsys.readouterr().err


@pytest.fixture(scope="module")
def edited(
    dump_file: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The right vmlinux with another address for its banner, and another build id."""
    source = Path(dump_file("vmlinux-6.1.0-56-amd64"))
    data = bytearray(source.read_bytes())
    image = Image(str(source))
    address, wrong = image.symbols()["linux_banner"], image.symbols()["init_task"]
    table = next(offset for name, _, offset, _ in image.sections() if name == ".symtab")
    at = data.index(struct.pack("<Q", address), table)
    data[at : at + 8] = struct.pack("<Q", wrong)
    data = data.replace(bytes.fromhex(image.build_id or ""), bytes(20))
    path = tmp_path_factory.mktemp("edited") / "vmlinux"
    path.write_bytes(data)
    assert Image(str(path)).symbols()["linux_banner"] == wrong
    yield str(path)
    path.unlink()


OTHER_BUILD = "is not the kernel of the dump: build id 00"


class TestOtherBuilds:
    """A vmlinux whose banner is nowhere in the dump."""

    def test_on_a_bare_machine(
        self, whole: Whole, edited: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = whole.notes(whole.text)
        with pytest.raises(xk.AbsentError):
            xk.open(path).domain(0, edited)
        domain = xk.open(path).domain(0, edited, force=True)
        assert domain.kernel.release == "6.1.0-56-amd64"
        assert traces(domain) == whole.traces
        unverified, mismatch = domain.warnings
        assert f"it is used at KASLR offset {whole.slide:#x} (VMCOREINFO note 0)" in unverified
        assert OTHER_BUILD in mismatch
        # Without a claim there is no offset.
        path = whole.notes()
        with pytest.raises(xk.AbsentError):
            xk.open(path).domain(0, edited, force=True)
        assert cli.main(["sys", "--force", edited, path, f"--kaslr-offset={whole.slide:x}"]) == 1
        given = [f"--kaslr-offset={whole.slide:x}", f"--phys-base={whole.phys_base}"]
        capsys.readouterr()
        assert cli.main(["bt", "--force", edited, path, *given]) == 0
        out, err = capsys.readouterr()
        assert "sysrq_handle_crash" in out
        assert f"{whole.slide:#x} (the given KASLR offset and phys_base)" in err

    def test_in_a_domain(self, dump_file: Callable[[str], str], edited: str) -> None:
        dump = xk.open(dump_file("xen417-dom0/vmcore"))
        right = dump.domain(0, dump_file("vmlinux-6.1.0-56-amd64"))
        with pytest.raises(xk.AbsentError):
            dump.domain(0, edited)
        forced = dump.domain(0, edited, force=True)
        assert traces(forced) == traces(right)
        assert [OTHER_BUILD in text for text in forced.warnings] == [False, True]


@pytest.mark.parametrize("root", [True, False])
def test_the_core_of_a_translated_guest(whole: Whole, tmp_path: Path, *, root: bool) -> None:
    """The bare machine as xl dump-core writes an HVM guest: no VMCOREINFO, pages by pfn."""
    path = tmp_path / "core"
    dump_core.write(whole.copy, path, whole.root if root else 0)
    domain = xk.open(path).domain(0, whole.vmlinux)
    assert domain.kernel.location.slide == whole.slide
    for address, trace in traces(domain).items():
        # The contexts of vCPUs have fewer registers.
        assert shape(trace) == shape(whole.traces[address])
    assert domain.warnings == []


@pytest.mark.parametrize("name", ["xen417-dom0", "bare-i386-pae"])
def test_a_kernel_that_did_not_move(dump_file: Callable[[str], str], name: str) -> None:
    """What is given is verified against the page tables, also of a PV domain."""
    vmlinux = dump_file(
        {"bare-i386-pae": "vmlinux-6.1.0-50-686-pae"}.get(name, "vmlinux-6.1.0-56-amd64")
    )
    dump = xk.open(dump_file(f"{name}/vmcore"))
    right = dump.domain(0, vmlinux)
    slide = right.kernel.location.slide
    wrong = dump.domain(0, vmlinux, kaslr_offset=slide + (1 << 21))
    assert wrong.kernel.location[:3] == right.kernel.location[:3]
    assert [text for text in wrong.warnings if text not in right.warnings] == [
        f"the given KASLR offset claims KASLR offset {slide + (1 << 21):#x}; the kernel was found "
        f"at KASLR offset {slide:#x}"
    ]
