"""Commands on save files print what they print on the dump of the host."""

from collections.abc import Callable
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump
from xenkdump_forge.containers import save

MEMORY = 64 << 20
KINDS = ("modern", "32on64", "2006-x86_64", "2006-pae", "xen3")
FORMATS = ("xl-save", "xl-save-hvm", "xm-save", "xm-save-hvm")

DumpOf = Callable[[str, str], SyntheticDump]
Output = Callable[..., str]


@pytest.fixture(scope="module")
def dump_of(tmp_path_factory: pytest.TempPathFactory) -> DumpOf:
    made: dict[tuple[str, str], SyntheticDump] = {}

    def get(kind: str, format_: str) -> SyntheticDump:
        if (kind, format_) not in made:
            folder = tmp_path_factory.mktemp("save")
            made[kind, format_] = write_dump(folder, kind, memory=MEMORY, format=format_)
        return made[kind, format_]

    return get


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Output:
    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 0
        out, errors = capsys.readouterr()
        # Of a kernel without the types of a member, and the like: the file gives no cause for any.
        assert "save" not in errors
        assert "stream" not in errors
        return out

    return run


def common(text: str) -> str:
    """Without ds, es and gs: the dump of a 64-bit Xen does not have those of a 32-bit guest."""
    return text.replace("  007b", "      ").replace("  GS:  0000", "")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel(kind: str, format_: str, dump_of: DumpOf, output: Output) -> None:
    host, saved = dump_of(kind, "elf"), dump_of(kind, format_)
    for command in (["bt", "--all"], ["bt", "--active"], ["ps"], ["log"], ["mod"]):
        expected = output(*command, host.vmlinux, host.vmcore)
        found = output(*command, saved.vmlinux, saved.vmcore)
        assert common(found) == common(expected)
    # The paths differ, and only a host has domains.
    lines, expected_lines = (
        [line for line in output("sys", *files).splitlines()[2:] if "DOMAIN: 0" not in line]
        for files in (saved_files(saved), saved_files(host))
    )
    assert lines == expected_lines


@pytest.mark.parametrize("format_", FORMATS)
def test_without_a_vmlinux(format_: str, dump_of: DumpOf, output: Output) -> None:
    host, saved = dump_of("modern", "elf"), dump_of("modern", format_)
    for command in (["ps"], ["log"]):
        assert output(*command, saved.vmcore) == output(*command, host.vmcore)


def test_the_domain(dump_of: DumpOf, output: Output) -> None:
    for format_, kind in (("xl-save", "PV 64"), ("xl-save-hvm", "HVM")):
        saved = dump_of("modern", format_)
        row = output("domains", saved.vmcore).splitlines()[1]
        assert kind in row
        assert save.UUID in row
        assert "aiko.lab.example" in row
        first, second = output("vcpus", "--vmlinux", saved.vmlinux, saved.vmcore).splitlines()[1:]
        assert "xen_hypercall_pv+5" in first
        assert "xen_hypercall_pv+5" in second
    saved = dump_of("32on64", "xl-save")
    assert "PV 32" in output("domains", saved.vmcore)


def test_names(dump_of: DumpOf) -> None:
    saved = dump_of("modern", "xl-save")
    with xk.open(saved.vmcore) as dump:
        assert dump.is_domain_file
        assert not dump.is_dump_core
        for name in (0, "0", save.NAME, save.UUID.upper(), "aiko.lab.example"):
            assert dump.domain(name, saved.vmlinux).id == 0
        with pytest.raises(xk.AbsentError, match="only domain 0"):
            dump.domain("mika")


def test_addresses(dump_of: DumpOf, output: Output) -> None:
    saved = dump_of("modern", "xl-save")
    domain = xk.open(saved.vmcore).domain(0, saved.vmlinux)
    assert not domain.has_p2m
    banner = domain.kernel.symbols["linux_banner"]
    assert domain.virtual.translate(banner) == banner - 0xFFFF_FFFF_8000_0000
    assert domain.physical.read(domain.virtual.translate(banner), 13) == b"Linux version"
    assert f"{banner - 0xFFFF_FFFF_8000_0000:x}" in output("vtop", *saved_files(saved), hex(banner))


def saved_files(saved: SyntheticDump) -> tuple[Path, Path]:
    return saved.vmlinux, saved.vmcore


def test_there_is_no_p2m_to_check(dump_of: DumpOf, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(dump_of("modern", "xl-save").vmcore)]) == 1
    assert "the page tables of a saved domain hold pfns" in capsys.readouterr().err


def test_the_records_are_listed(dump_of: DumpOf, output: Output) -> None:
    found = output("notes", dump_of("modern", "xl-save-hvm").vmcore)
    for name in ("configuration", "HVM_CONTEXT", "HVM_PARAMS", "EMULATOR_CONTEXT"):
        assert f"({name})" in found
    assert f'"name": "{save.NAME}"' in found
    assert "Nhdr" not in found
