"""Files of `xl save`: the memory of the domain that was saved, and what is missing of it."""

import io
import shutil
import struct
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import xenkdump_fast as xk
from xenkdump_fast import Status
from xenkdump_fast._native import Dump
from xenkdump_forge import SyntheticDumpError, build
from xenkdump_forge.containers import save, save_v1
from xenkdump_forge.containers.saved_domain import XALLOC, XTAB, SavedDomain, Vcpu
from xenkdump_forge.memory.machine import PAGE

MEMORY = 64 << 20
KINDS = ("modern", "32on64", "2006-x86_64")


@pytest.fixture(scope="module")
def domain_of() -> Callable[[str], SavedDomain]:
    domains: dict[str, SavedDomain] = {}

    def get(kind: str) -> SavedDomain:
        if kind not in domains:
            domains[kind] = SavedDomain.of(build(kind, memory=MEMORY).kernels[0])
        return domains[kind]

    return get


def small(word: int = 8, pages: int = 300) -> SavedDomain:
    """Pages with a word of their own, a root that maps the first 16, and two without memory."""
    frames: list[int | None] = [0x500 - pfn for pfn in range(pages)]
    frames[17] = frames[pages - 2] = None
    contents = {mfn: struct.pack("<Q", mfn) * 512 for mfn in frames if mfn is not None}
    chain = [frames[pfn] for pfn in (20, 21, 22, 23)][: 4 if word == 8 else 3]
    for table, below in pairwise(chain):
        assert table is not None
        assert below is not None
        contents[table] = struct.pack("<Q", below << 12 | 7).ljust(PAGE, b"\0")
    assert chain[-1] is not None
    leaf = [(0 if mfn is None else mfn << 12 | 7) for mfn in frames[:16]]
    contents[chain[-1]] = struct.pack("<16Q", *leaf).ljust(PAGE, b"\0")
    assert chain[0] is not None
    return SavedDomain(word, frames, contents.__getitem__, [chain[0]], [], [24], b"\x11" * PAGE)


def written(domain: SavedDomain, options: save.Options, path: Path) -> Path:
    with path.open("wb") as file:
        save.write(domain, file, options)
    return path


def of_records(path: Path, *records: bytes, kind: int = 1) -> Dump:
    """A bare stream of libxc with these records."""
    path.write_bytes(save.libxc_headers(3, kind) + b"".join(records))
    return Dump(path)


def page(byte: int) -> bytes:
    return bytes([byte]) * PAGE


def assert_memory(dump: Dump, domain: SavedDomain) -> None:
    """Every page is the domain's, by single reads and by batches."""
    addresses = np.arange(len(domain.frames), dtype=np.uint64) * np.uint64(PAGE)
    status = np.empty(len(addresses), dtype=np.uint8)
    rows = dump.machine.read_many(addresses, PAGE, status=status)
    for pfn, mfn in enumerate(domain.frames):
        if mfn is None:
            assert status[pfn] == Status.NO_SEGMENT
        else:
            assert rows[pfn].tobytes() == domain.page(pfn)
            if pfn % 97 == 0:
                assert dump.machine.read(pfn * PAGE, PAGE) == domain.page(pfn)
    held = sum(mfn is not None for mfn in domain.frames) * PAGE
    assert (dump.memory_held, dump.memory_size) == (held, held)
    assert sum(part.size for part in dump.machine.iter_mapped()) == held


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hvm", [False, True], ids=["pv", "hvm"])
def test_every_page(
    kind: str, hvm: bool, domain_of: Callable[[str], SavedDomain], tmp_path: Path
) -> None:
    domain = domain_of(kind)
    dump = Dump(written(domain, save.Options(hvm=hvm), tmp_path / "save"))
    assert dump.warnings == []
    assert (dump.auto_translated, dump.is_normalised) == (hvm, not hvm)
    assert dump.domain_kind == ("translated" if hvm else "pv")
    assert_memory(dump, domain)
    names = ("rip", "rsp", "rbx") if domain.word == 8 else ("eip", "esp", "ebx")
    contexts = dump.vcpu_contexts
    assert [context["id"] for context in contexts] == [vcpu.number for vcpu in domain.vcpus]
    for context, vcpu in zip(contexts, domain.vcpus, strict=True):
        assert context["word"] == domain.word
        assert domain.frames[context["root"] // PAGE] == vcpu.root
        for name in names:
            assert context["registers"][name] == vcpu.registers[name]
    assert (dump.shared_info is None) == hvm


@pytest.mark.parametrize(
    "options",
    [
        save.Options(version=2),
        save.Options(xl=False),
        save.Options(xl=False, libxl=False),
        save.Options(live=False, batch=7),
        save.Options(checkpoints=2),
        save.Options(checkpoints=2, xl=False, libxl=False),
        save.Options(hvm=True, checkpoints=3),
    ],
    ids=str,
)
def test_streams(options: save.Options, tmp_path: Path) -> None:
    domain = small()
    dump = Dump(written(domain, options, tmp_path / "save"))
    assert dump.warnings == []
    layer = "xl" if options.xl else "libxl" if options.libxl else "libxc"
    assert dump.format == f"{layer} save file"
    assert_memory(dump, domain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        save_v1.Options(),
        save_v1.Options(word=4),
        save_v1.Options(hvm=True),
        save_v1.Options(hvm=True, word=4, live=False, extended=False),
        save_v1.Options(xend=False, live=False, extended=False),
        save_v1.Options(checkpoints=1),
    ],
    ids=str,
)
def test_legacy_streams(
    kind: str,
    options: save_v1.Options,
    domain_of: Callable[[str], SavedDomain],
    tmp_path: Path,
) -> None:
    domain = domain_of(kind)
    with (tmp_path / "save").open("wb") as file:
        save_v1.write(domain, file, options)
    dump = Dump(tmp_path / "save")
    assert dump.warnings == []
    assert dump.format == ("xm save file" if options.xend else "xl save file")
    assert (dump.auto_translated, dump.is_normalised) == (options.hvm, not options.hvm)
    assert_memory(dump, domain)
    assert [context["id"] for context in dump.vcpu_contexts] == [
        vcpu.number for vcpu in domain.vcpus
    ]
    for context, vcpu in zip(dump.vcpu_contexts, domain.vcpus, strict=True):
        assert domain.frames[context["root"] // PAGE] == vcpu.root
    assert (dump.shared_info is None) == options.hvm
    assert name_of(options) in dump.notes[0].fields["text"]


def name_of(options: save_v1.Options) -> str:
    """How the configuration has the domain's name."""
    return f"(name {save.NAME})" if options.xend else f'name="{save.NAME}"'


def test_legacy_checkpoints(tmp_path: Path) -> None:
    """Of a stream that breaks off, the last whole checkpoint is shown."""
    domain = small()
    vcpu = Vcpu(0, {"rip": 0x1234}, domain.frames[20] or 0)
    domain.vcpus = [vcpu]
    file = io.BytesIO()
    save_v1.write(domain, file, save_v1.Options(checkpoints=2, live=False))
    path = tmp_path / "save"
    path.write_bytes(file.getvalue()[:-PAGE])
    dump = Dump(path)
    assert any("after checkpoint 2" in text for text in dump.warnings)
    assert dump.machine.u32(89 * PAGE) == 0xDEAD0000
    assert dump.machine.u32(90 * PAGE) == 0xDEAD0001
    with pytest.raises(xk.MemoryFault):
        dump.machine.u8(2 * PAGE)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (struct.pack("<Qi", 100, -12) + bytes(64), "without compression"),
        (struct.pack("<Qi", 100, 1025) + bytes(64), "a stream of Xen 3.1"),
        (struct.pack("<QiiQ", 100, -2, 5000, 1) + bytes(64), "vCPUs up to 4095"),
        (struct.pack("<QiQ", 100, 1, 6 << 28) + bytes(64), "a known type of page"),
        (struct.pack("<QQI4sI", 100, (1 << 64) - 1, 9, b"vcpu", 7) + bytes(64), "5168 or 2800"),
        (struct.pack("<QQI4sI", 100, (1 << 64) - 1, 8, b"extv", 0) + bytes(64), "no block"),
    ],
)
def test_broken_legacy_streams(body: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "save").write_bytes(save_v1.xend_header(hvm=False) + body)
    with pytest.raises(xk.DumpError, match=expected):
        Dump(tmp_path / "save")


@pytest.mark.parametrize("hvm", [False, True])
def test_every_cut_of_a_legacy_stream(hvm: bool, tmp_path: Path) -> None:
    domain = small()
    domain.vcpus = [Vcpu(0, {"rip": 0x1234}, domain.frames[20] or 0)]
    file = io.BytesIO()
    save_v1.write(domain, file, save_v1.Options(hvm=hvm, live=False))
    whole = file.getvalue()
    path = tmp_path / "save"
    # QEMU's state, which follows an HVM guest's, is not read.
    end = len(whole) - 30 * hvm
    for size in [*range(100, 6000, 101), *range(6000, end, 30_011), end - 1]:
        path.write_bytes(whole[:size])
        dump = Dump(path)
        assert any("the file is cut" in text for text in dump.warnings), size
        for pfn in range(0, 300, 7):
            try:
                found = dump.machine.read(pfn * PAGE, PAGE)
            except xk.MemoryFault:
                continue
            assert found == domain.page(pfn)


@pytest.mark.parametrize("word", [8, 4])
def test_page_tables_lead_to_pfns(word: int, tmp_path: Path) -> None:
    domain = small(word)
    dump = Dump(written(domain, save.Options(), tmp_path / "save"))
    virtual = dump.virtual(20 * PAGE, "x86_64" if word == 8 else "x86-pae")
    for pfn in range(16):
        assert virtual.translate(pfn * PAGE) == pfn * PAGE
        assert virtual.u64(pfn * PAGE) == domain.frames[pfn]


def test_the_last_copy_is_valid(tmp_path: Path) -> None:
    first = save.page_data([(pfn, 0, page(pfn)) for pfn in range(8)])
    again = save.page_data([(5, 0, page(0x55)), (3, XTAB, b""), (4, XALLOC, b""), (6, 9, page(6))])
    back = save.page_data([(3, 0, page(0x33))])
    dump = of_records(tmp_path / "save", first, again, back, save.record(save.END))
    assert [dump.machine.u8(pfn * PAGE) for pfn in (0, 3, 5, 6)] == [0, 0x33, 0x55, 6]
    with pytest.raises(xk.MemoryFault, match="the stream has its page without contents"):
        dump.machine.u8(4 * PAGE)
    dump = of_records(tmp_path / "save", first, again, save.record(save.END))
    with pytest.raises(xk.MemoryFault, match="in no segment"):
        dump.machine.u8(3 * PAGE)
    assert dump.warnings == []


def test_verification_is_no_newer_copy(tmp_path: Path) -> None:
    """Xen compares what follows VERIFY, and does not use it."""
    first, second = (save.page_data([(1, 0, page(byte))]) for byte in (1, 2))
    records = (first, save.record(save.VERIFY), second, save.record(save.END))
    assert of_records(tmp_path / "save", *records).machine.u8(PAGE) == 1


def test_checkpoints(tmp_path: Path) -> None:
    """A stream that breaks off is shown as at the last checkpoint."""
    one, two = (
        save.page_data([(1, 0, page(byte)), (byte, 0, page(byte))])
        + save.record(save.VCPU_BASIC, struct.pack("<II", byte, 0) + bytes(5168))
        for byte in (8, 9)
    )
    checkpoint = save.record(save.CHECKPOINT)
    dump = of_records(tmp_path / "save", one, checkpoint, two)
    assert [dump.machine.u8(pfn * PAGE) for pfn in (1, 8)] == [8, 8]
    with pytest.raises(xk.MemoryFault):
        dump.machine.u8(9 * PAGE)
    assert [context["id"] for context in dump.vcpu_contexts] == [8]
    assert any("after checkpoint 1" in text for text in dump.warnings)
    dump = of_records(tmp_path / "save", one, checkpoint, two, save.record(save.END))
    assert [dump.machine.u8(pfn * PAGE) for pfn in (1, 8, 9)] == [9, 8, 9]
    assert dump.warnings == []


def test_every_cut(tmp_path: Path) -> None:
    """A page is as it was sent, or it is missing; and the cut is reported."""
    domain = small()
    options = save.Options(live=False, batch=50)
    file = io.BytesIO()
    save.write(domain, file, options)
    whole = file.getvalue()
    path = tmp_path / "save"
    for size in [*range(32, 1200, 13), *range(1200, len(whole), 10_007), len(whole) - 1]:
        path.write_bytes(whole[:size])
        dump = Dump(path)
        assert any("the file is cut" in text for text in dump.warnings), size
        status = np.empty(len(domain.frames), dtype=np.uint8)
        addresses = np.arange(len(domain.frames), dtype=np.uint64) * np.uint64(PAGE)
        rows = dump.machine.read_many(addresses, PAGE, status=status)
        for pfn in range(len(domain.frames)):
            if status[pfn] == Status.OK:
                assert rows[pfn].tobytes() == domain.page(pfn)
        assert np.count_nonzero(status == Status.OK) <= size // PAGE
    # The P2M's length is known: what was not sent is lost, and not taken for absent.
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(xk.MemoryFault, match="past the end of the file"):
        Dump(path).machine.u8(299 * PAGE)


def test_unknown_records(tmp_path: Path) -> None:
    data, end = save.page_data([(1, 0, page(1))]), save.record(save.END)
    dump = of_records(tmp_path / "save", save.record(0x80000013, b"x" * 9), data, end)
    assert (dump.warnings, dump.machine.u8(PAGE)) == ([], 1)
    dump = of_records(tmp_path / "save", save.record(0x13, b"x" * 9), data, end)
    assert ["unknown type 0x13 and is mandatory" in text for text in dump.warnings] == [True]
    assert dump.machine.u8(PAGE) == 1


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (save.page_data([(1, 6, b""), (2, 0, page(9))]), "the unknown page type 0x6"),
        (save.page_data([(1, 0, page(9)), (2, 0, page(9)[:-8])]), "bytes instead of"),
    ],
)
def test_a_corrupt_record_of_pages(broken: bytes, why: str, tmp_path: Path) -> None:
    """Its pages are lost: earlier copies of them are out of date."""
    first = save.page_data([(pfn, 0, page(pfn)) for pfn in range(4)])
    dump = of_records(tmp_path / "save", first, broken, save.record(save.END))
    assert [why in text for text in dump.warnings] == [True]
    assert dump.machine.u8(3 * PAGE) == 3
    for pfn in (1, 2):
        with pytest.raises(xk.MemoryFault, match="without contents"):
            dump.machine.u8(pfn * PAGE)


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (15, 4, "version 2 or 3"),
        (17, 1, "a little-endian libxc stream"),
        (24, 3, "an x86 PV"),
        (28, 16, "pages of 4096 bytes"),
    ],
)
def test_other_streams(at: int, value: int, expected: str, tmp_path: Path) -> None:
    header = bytearray(save.libxc_headers(3, 1))
    header[at] = value
    (tmp_path / "save").write_bytes(header)
    with pytest.raises(xk.DumpError, match=expected):
        Dump(tmp_path / "save")


def test_a_stream_without_memory(tmp_path: Path) -> None:
    dump = of_records(tmp_path / "save", save.record(save.END))
    assert dump.warnings == ["the stream has no memory"]
    assert dump.vcpu_contexts == []


def test_notes(tmp_path: Path) -> None:
    """The records are listed, but for those of pages."""
    dump = Dump(written(small(), save.Options(), tmp_path / "save"))
    names = [(note.name, note.type_name) for note in dump.notes]
    assert names == [
        ("xl config", "configuration"),
        ("libxc header", "headers"),
        ("libxc", "X86_PV_INFO"),
        ("libxc", "X86_PV_P2M_FRAMES"),
        ("libxc", "X86_TSC_INFO"),
        ("libxc", "SHARED_INFO"),
    ]
    assert save.NAME in dump.notes[0].fields["text"]
    assert dump.notes[1].fields == {
        "version": 3,
        "domain_type": 1,
        "page_size": 4096,
        "xen_major_version": 4,
        "xen_minor_version": 17,
    }


def test_xen_verifies_the_stream(domain_of: Callable[[str], SavedDomain], tmp_path: Path) -> None:
    """By Xen's own script, which cannot read the records of an emulator with Python 3."""
    installed = sorted(Path("/usr/lib").glob("xen-*/bin/verify-stream-v2"))
    script = shutil.which("verify-stream-v2") or (str(installed[-1]) if installed else None)
    if script is None:
        pytest.skip("verify-stream-v2 is not installed")
    for kind in KINDS:
        path = written(domain_of(kind), save.Options(), tmp_path / "save")
        command = [script, "--in", str(path), "--format", "xl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_only_x86_64_and_pae_domains_are_saved() -> None:
    with pytest.raises(SyntheticDumpError, match="page tables is not saved"):
        SavedDomain.of(build("2006").kernels[0])


def test_libvirt(tmp_path: Path) -> None:
    """virsh save of a domain of libxl: a header and the domain's XML before the stream."""
    domain, file = small(), io.BytesIO()
    save.write(domain, file, save.Options(xl=False))
    xml = b"<domain type='xen'><name>aiko</name></domain>\0"
    header = struct.pack("<16sII40x", b"libvirt-xml\n \0 \r", 2, len(xml)) + xml
    (tmp_path / "save").write_bytes(header + file.getvalue())
    dump = Dump(tmp_path / "save")
    assert (dump.format, dump.warnings) == ("libvirt save file of libxl", [])
    assert "<name>aiko" in dump.notes[0].fields["text"]
    assert_memory(dump, domain)
