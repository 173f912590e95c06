"""Symbol files for volatility3, of synthetic kernels; volatility3 itself is not needed."""

import base64
import json
import lzma
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import xenkdump_fast as xk
from xenkdump_fast import cli
from xenkdump_fast.bridges.volatility import files as volatility_files
from xenkdump_fast.bridges.volatility import isf, isf_types
from xenkdump_fast.limits import MAX_ISF_DEPTH
from xenkdump_fast.linux.kernel import Kernel
from xenkdump_forge import SyntheticDump, write_dump

if TYPE_CHECKING:
    from xenkdump_fast._native import Type, TypeGraph

#: What the format allows in the descriptor of a type, by kind.
KINDS = {
    "base": {"name"},
    "pointer": {"subtype"},
    "array": {"count", "subtype"},
    "struct": {"name"},
    "union": {"name"},
    "enum": {"name"},
    "function": set(),
    "bitfield": {"bit_position", "bit_length", "type"},
}


@pytest.fixture(scope="module", params=["modern", "xen3"])
def dump(request: Any, tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def kernel(dump: SyntheticDump) -> Kernel:
    return xk.open(str(dump.vmcore)).domain(0, str(dump.vmlinux)).kernel


@pytest.fixture(scope="module")
def document(kernel: Kernel) -> dict[str, Any]:
    return isf.document(kernel)


@pytest.fixture(scope="module")
def files(dump: SyntheticDump) -> tuple[str, str]:
    return str(dump.vmlinux), str(dump.vmcore)


def check(descriptor: dict[str, Any], document: dict[str, Any]) -> None:
    """A descriptor has what its kind allows, and refers to types that exist."""
    kind = descriptor["kind"]
    assert descriptor.keys() - {"kind"} == KINDS[kind]
    if kind == "base":
        assert descriptor["name"] in document["base_types"]
    elif kind == "enum":
        assert descriptor["name"] in document["enums"]
    for inner in ("subtype", "type"):
        if inner in descriptor:
            check(descriptor[inner], document)


def test_descriptors_are_valid(document: dict[str, Any]) -> None:
    assert document["metadata"]["format"] == "6.2.0"
    assert len(document["user_types"]) > 20
    for struct in document["user_types"].values():
        assert struct["kind"] in ("struct", "union")
        for field in struct["fields"].values():
            check(field["type"], document)
    for symbol in document["symbols"].values():
        check(symbol["type"], document)
    for enum in document["enums"].values():
        assert document["base_types"][enum["base"]]["size"] == enum["size"]


def fields(name: str, document: dict[str, Any], base: int = 0) -> dict[str, tuple[int, Any]]:
    """The fields of a struct, with those of anonymous ones, as volatility3 has them."""
    found: dict[str, tuple[int, Any]] = {}
    for field, value in document["user_types"][name]["fields"].items():
        at = base + value["offset"]
        if value.get("anonymous"):
            found |= fields(value["type"]["name"], document, at)
        else:
            found[field] = at, value["type"]
    return found


def test_fields_are_those_of_the_types(kernel: Kernel, document: dict[str, Any]) -> None:
    assert kernel.types.native is not None
    compared = 0
    for name in ("task_struct", "mm_struct", "list_head", "module", "page", "pid"):
        if name not in kernel.types:
            continue
        assert document["user_types"][name]["size"] == kernel.types.sizeof(name)
        members = kernel.types.native.members(name)
        found = fields(name, document)
        assert found.keys() == members.keys()
        for field, member in members.items():
            at, descriptor = found[field]
            if member.bit_size is None:
                assert at == member.offset, field
                continue
            assert descriptor["bit_length"] == member.bit_size
            assert member.bit_offset is not None
            first = 8 * at + descriptor["bit_position"]
            assert first == 8 * member.offset + member.bit_offset, field
        compared += len(members)
    assert compared > 40


def test_addresses_are_those_of_the_link(kernel: Kernel, document: dict[str, Any]) -> None:
    symbols = document["symbols"]
    slide = kernel.location.slide
    assert symbols["init_task"]["address"] == kernel.symbols["init_task"] - slide
    assert symbols["init_task"]["type"] == {"kind": "struct", "name": "task_struct"}
    assert set(symbols) == {symbol.name for symbol in kernel.symbols}
    for name in list(symbols)[:500]:
        expected = kernel.image.symbols(0)[name]
        assert symbols[name]["address"] == expected
    banner = base64.b64decode(symbols["linux_banner"]["constant_data"])
    assert banner == kernel.cstring(kernel.symbols["linux_banner"]) + b"\0"
    assert banner.startswith(b"Linux version ")


def test_variables_have_types(kernel: Kernel, document: dict[str, Any]) -> None:
    symbols = document["symbols"]
    found = symbols["linux_banner"]["type"]
    assert (found["kind"], found["subtype"]) == ("array", {"kind": "base", "name": "char"})
    functions = [symbol.name for symbol in kernel.symbols if symbol.kind == "func"]
    assert functions
    assert symbols[functions[0]]["type"] == {"kind": "function"}


def test_the_command_writes_a_file(
    dump: SyntheticDump,
    document: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [str(dump.vmlinux), str(dump.vmcore)]
    assert cli.main(["isf", *files, "-o", "kernel.json"]) == 0
    assert capsys.readouterr().out == "kernel.json\n"
    assert json.loads(Path("kernel.json").read_text()) == document
    assert cli.main(["isf", *files]) == 0
    (packed,) = tmp_path.glob("linux-*.json.xz")
    assert capsys.readouterr().out == f"{packed.name}\n"
    assert json.loads(lzma.decompress(packed.read_bytes())) == document
    assert cli.main(["isf", *files, "-o", "kernel.json"]) == 2
    assert "kernel.json exists" in capsys.readouterr().err
    assert cli.main(["isf", *files, "-o", "kernel.json", "--overwrite"]) == 0
    assert cli.main(["isf", *files, "-o", "kernel.txt"]) == 2
    assert cli.main(["isf", *files, "-o", "absent/kernel.json"]) == 74
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel.json", packed.name]


def test_a_kernel_without_types_has_no_file(tmp_path: Path) -> None:
    made = write_dump(tmp_path, "2006")
    kernel = xk.open(str(made.vmcore)).domain(0).kernel
    with pytest.raises(xk.AbsentError, match="neither BTF nor DWARF"):
        isf.document(kernel)


def test_the_number_of_parts_is_limited(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isf_types, "MAX_ISF_PARTS", 100)
    with pytest.raises(xk.AbsentError, match="parts of types"):
        isf.document(kernel)


class Ring:
    """A type that refers to itself."""

    number = 1
    name = "ring"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @property
    def target(self) -> "Ring":
        return self

    target_number = 1
    count = 2


@pytest.mark.parametrize("kind", ["ptr", "typedef", "array", "const"])
def test_types_that_refer_to_themselves_end(kind: str) -> None:
    types = isf_types.IsfTypes(cast("TypeGraph", []), 8, numbered=True)
    found = types.describe(cast("Type", Ring(kind)))
    depth = 0
    while "subtype" in found:
        found, depth = found["subtype"], depth + 1
    assert found == isf_types.VOID
    assert depth <= MAX_ISF_DEPTH + 1


def test_a_file_that_appears_meanwhile_is_kept(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kernel.json"

    def document(kernel: object) -> dict[str, object]:
        path.write_text("of another program")
        return {}

    monkeypatch.setattr(isf, "document", document)
    assert cli.main(["isf", *files, "-o", str(path)]) == 74
    assert path.read_text() == "of another program"
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_that_is_read_is_written(files: tuple[str, str], tmp_path: Path) -> None:
    vmlinux = tmp_path / "vmlinux.json"
    vmlinux.write_bytes(Path(files[0]).read_bytes())
    link = tmp_path / "link.json"
    link.symlink_to(vmlinux)
    before = vmlinux.read_bytes()
    for name in (vmlinux, link):
        words = [str(vmlinux), files[1], "-o", str(name), "--overwrite"]
        assert cli.main(["isf", *words]) == 2
    assert vmlinux.read_bytes() == before


@pytest.mark.parametrize("name", ["kernel.json", "kernel.json.xz"])
def test_nothing_is_left_of_a_failure(
    name: str, files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(kernel: object) -> dict[str, object]:
        signal.raise_signal(signal.SIGTERM)
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(isf, "document", stopped)
        with pytest.raises(SystemExit):
            volatility_files.write(
                xk.open(files[1]).domain(0, files[0]).kernel, tmp_path / name, force=False
            )
    assert list(tmp_path.iterdir()) == []
