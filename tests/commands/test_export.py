"""``export``: what it prints, and what it refuses."""

import contextlib
import json
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("sample"), "modern")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "one of -o FILE and --all-domains DIR is needed"),
        (["-o", "x", "--all-domains", "y"], "one of -o FILE and --all-domains DIR is needed"),
        (["-o", "-"], "a file is needed"),
        (["-o", "x", "--compress", "zstd"], "only allowed with --format kdump"),
        (["-o", "{vmcore}", "--force"], "is a file that is read"),
        (["-o", "{vmlinux}"], "is a file that is read"),
        (["-o", "x", "--dump-level", "32"], "not a number from 0 to 31"),
        (["-o", "x", "--format", "pdf"], "invalid choice"),
        (["-o", "x", "--hypervisor", "--format", "raw"], "only with --format elf"),
        (["--hypervisor", "--all-domains", "x"], "not allowed with argument --hypervisor"),
    ],
)
def test_usage(
    options: list[str], problem: str, made: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(made.vmcore)] if "--hypervisor" in options else [str(made.vmlinux)]
    files += [] if "--hypervisor" in options else [str(made.vmcore)]
    filled = [option.format(vmcore=made.vmcore, vmlinux=made.vmlinux) for option in options]
    with contextlib.suppress(SystemExit):  # of argparse
        assert main(["export", *files, *filled]) == 2
    assert problem in capsys.readouterr().err
    assert not Path("x").exists()


def test_text_and_json(
    made: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dom0.vmcore"
    command = ["export", str(made.vmlinux), str(made.vmcore), "-o", str(path)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{path}: ")
    assert text.endswith(" on disk\n")
    assert main(command) == 2
    assert f"{path} exists (--overwrite replaces it)" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    capsys.readouterr()
    assert main([*command, "--overwrite", "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert file["file"] == str(path)
    assert file["size"] == path.stat().st_size
    assert file["domain"] == 0
    assert file["pages"] == file["written"] + file["zero"]
    assert file["lost"] == 0


def test_the_note(made: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the file was written from, and which words differ."""
    path = str(tmp_path / "out")
    assert main(["export", str(made.vmlinux), str(made.vmcore), "-o", path]) == 0
    capsys.readouterr()
    assert main(["notes", path, "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    own = next(note for note in notes if note["name"] == "XENKDUMP")
    assert (own["kind"], own["type_name"]) == ("export", "export")
    facts = json.loads(own["fields"]["text"])
    assert facts["tool"].startswith("xenkdump_fast ")
    assert facts["source"]["files"] == [str(made.vmcore)]
    assert facts["source"]["domain"] == 0
    for word in facts["altered"]:
        assert set(word) == {"address", "size", "original", "value", "reason"}
    cpus = [note for note in notes if note["kind"] == "prstatus"]
    assert len(cpus) == len(facts["cpus"]) > 0
    assert len([note for note in notes if note["name"] == "QEMU"]) == len(cpus)


def test_all_domains(
    made: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "domains"
    command = ["export", str(made.vmcore), "--all-domains", str(folder), "--json"]
    status = main(command)
    found = json.loads(capsys.readouterr().out)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(Path(file["file"]).name for file in found["files"])
    assert names[0].startswith("domain-0-")
    assert status == (1 if found.get("failed") else 0)
    # Existing files are failures of their domains, not of the command.
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "exists (--overwrite replaces it)" in captured.err
    assert json.loads(captured.out)["files"] == []


def test_replacing_a_file_accepts_no_other_build(
    made: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    symbols = tmp_path / "xen-syms.map"
    symbols.write_text("ffff82d040200000 T _start\nffff82d040200040 T __high_start\n")
    path = tmp_path / "xen.vmcore"
    path.write_bytes(b"old")
    command = ["export", "--hypervisor", str(symbols), str(made.vmcore), "-o", str(path)]
    assert main([*command, "--overwrite"]) == 1
    assert "(--force continues anyway)" in capsys.readouterr().err
    assert path.read_bytes() == b"old"


def test_a_vmlinux_of_another_build(
    made: SyntheticDump,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = xk.open(made.vmcore).domain(0, made.vmlinux).kernel.image.build_id
    assert build is not None
    own = bytes.fromhex(build)
    vmlinux, path = tmp_path / "vmlinux", tmp_path / "out"
    vmlinux.write_bytes(made.vmlinux.read_bytes().replace(own, bytes(len(own))))
    command = ["export", str(vmlinux), str(made.vmcore), "-o", str(path)]
    assert main([*command, "--overwrite"]) == 1
    err = capsys.readouterr().err
    assert "is not the kernel of the dump" in err
    assert err.endswith("(--force continues anyway)\n")
    assert not path.exists()
    assert main([*command, "--force"]) == 0
    assert "is not the kernel of the dump" in capsys.readouterr().err
    assert path.exists()


def test_force_leaves_other_kernels_to_their_domains(
    made: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all domains, only those that run the vmlinux are opened with it."""
    command = ["export", str(made.vmlinux), str(made.vmcore), "--all-domains", str(tmp_path)]
    main(command)
    expected = capsys.readouterr().err
    main([*command, "--force"])
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("level", [0, 1])
def test_sys_says_that_pages_were_excluded(
    level: int, made: SyntheticDump, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As crash, by the header's dump level; of an ELF file the level is not known."""
    path = str(tmp_path / "out")
    files = [str(made.vmlinux), str(made.vmcore)]
    options = ["--format", "kdump", "--dump-level", str(level)]
    assert main(["export", *files, *options, "-o", path]) == 0
    for file, mark, recorded in (
        (path, "  [PARTIAL DUMP]" if level else "", level),
        (str(made.vmcore), "", None),
    ):
        capsys.readouterr()
        assert main(["sys", str(made.vmlinux), file]) == 0
        assert f"    DUMPFILE: {file}{mark}\n" in capsys.readouterr().out
        assert main(["sys", "--json", str(made.vmlinux), file]) == 0
        assert json.loads(capsys.readouterr().out)["dump_level"] == recorded
