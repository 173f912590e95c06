"""Layouts of real kernels, compared with their VMCOREINFO."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_fast import _native as native

pytestmark = pytest.mark.real

Path = Callable[[str], str]
Truth = Callable[[str], Any]


@pytest.fixture(scope="module")
def btf(dump_file: Path) -> native.Types:
    return native.Image(dump_file("vmlinux-6.1.0-56-amd64")).types()


def vmcoreinfo(text: str, key: str) -> dict[str, int]:
    """Lines such as ``OFFSET(page.flags)=0``."""
    found = re.findall(rf"^{key}\(([^)]+)\)=(\d+)$", text, re.MULTILINE)
    return {name: int(value) for name, value in found}


def test_btf_agrees_with_the_kernel(btf: native.Types, truth: Truth) -> None:
    assert (btf.source, btf.word) == ("BTF", 8)
    text = truth("xen417-dom0/truth.json")["vmcoreinfo"]
    offsets, sizes = vmcoreinfo(text, "OFFSET"), vmcoreinfo(text, "SIZE")
    assert len(offsets) > 40
    for path, offset in offsets.items():
        assert btf.offset(path) == offset, path
    assert len(sizes) > 10
    for name, size in sizes.items():
        assert btf.sizeof(name) == size, name
    lengths = vmcoreinfo(text, "LENGTH")
    for path in ("zone.free_area", "free_area.free_list"):
        assert btf.member(path).count == lengths[path]


def test_enumerators_agree_with_the_kernel(btf: native.Types, truth: Truth) -> None:
    numbers = vmcoreinfo(truth("xen417-dom0/truth.json")["vmcoreinfo"], "NUMBER")
    for name in ["NR_FREE_PAGES", "PG_lru", "PG_private", "PG_swapcache", "PG_slab"]:
        assert btf.enumerator(name) == numbers[name], name
    assert btf.enum("pageflags")["PG_lru"] == numbers["PG_lru"]
    with pytest.raises(native.AbsentError):
        btf.enumerator("PG_nothing")


def test_members_are_described(btf: native.Types) -> None:
    comm = btf.member("task_struct.comm")
    assert (comm.kind, comm.size, comm.count, comm.type_name) == ("array", 16, 16, "char[16]")
    state = btf.member("task_struct.__state")
    assert (state.kind, state.size, state.signed) == ("int", 4, False)
    assert btf.member("task_struct.pid").signed
    mm = btf.member("task_struct.mm")
    assert (mm.kind, mm.size, mm.type_name) == ("ptr", 8, "struct mm_struct *")
    assert btf.member("task_struct.se").kind == "struct"
    assert btf.offset("task_struct.se.exec_start") == btf.offset("task_struct.se") + btf.offset(
        "sched_entity.exec_start"
    )
    first, second = btf.offset("zone.free_area[0].nr_free"), btf.offset("zone.free_area[1].nr_free")
    assert second - first == btf.sizeof("free_area")


def test_bit_fields_are_within_their_bytes(btf: native.Types) -> None:
    members = btf.members("task_struct")
    fields = {name: member for name, member in members.items() if member.bit_size is not None}
    assert len(fields) > 10
    taken: set[int] = set()
    for name, member in fields.items():
        assert member.bit_offset is not None
        assert member.bit_size is not None
        assert member.bit_offset + member.bit_size <= 8 * member.size, name
        first = 8 * member.offset + member.bit_offset
        bits = set(range(first, first + member.bit_size))
        assert not bits & taken, name
        taken |= bits
        assert btf.member(f"task_struct.{name}").bit_offset == member.bit_offset


def test_members_of_anonymous_structs(btf: native.Types) -> None:
    members = btf.members("page")
    assert members["compound_head"].offset == members["lru"].offset == 8
    assert "" not in members


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_struct", "no type"),
        ("no_such_struct.member", "no type"),
        ("task_struct.no_such_member", "there is none"),
        ("task_struct.mm.pgd", "pointer"),
        ("task_struct.pid.low", "not a struct"),
        ("task_struct.comm[99]", "no such element"),
        ("task_struct.comm[x]", "not a member's name"),
        ("task_struct.", "not a member's name"),
        ("", "no type"),
    ],
)
def test_errors_name_what_is_absent(btf: native.Types, path: str, reason: str) -> None:
    with pytest.raises(native.AbsentError, match=reason):
        btf.member(path)


def test_names_with_a_tag(btf: native.Types) -> None:
    assert "task_struct" in btf
    assert "struct task_struct" in btf
    assert "union task_struct" not in btf
    assert "pid_t" in btf
    assert btf.sizeof("pid_t") == 4
    assert btf.offset("struct list_head.prev") == 8


def test_dwarf_compacted_by_dwz_agrees_with_the_kernel(
    dump_file: Path, tmp_path: pathlib.Path
) -> None:
    dump = native.Dump(dump_file("bare-i386-pae/vmcore"))
    (text,) = (note.fields["text"] for note in dump.notes if note.kind == "vmcoreinfo")
    offsets, sizes = vmcoreinfo(text, "OFFSET"), vmcoreinfo(text, "SIZE")
    assert len(offsets) > 40
    image = native.Image(dump_file("vmlinux-6.1.0-50-686-pae"))
    # The second run uses the index cache that the first one wrote.
    for _ in range(2):
        types = image.types(tmp_path)
        assert (types.source, types.word) == ("DWARF", 4)
        for path, offset in offsets.items():
            assert types.offset(path) == offset, path
        for name, size in sizes.items():
            assert types.sizeof(name) == size, name
        for name in ["NR_FREE_PAGES", "PG_lru", "PG_slab"]:
            assert types.enumerator(name) == vmcoreinfo(text, "NUMBER")[name]
        assert len(list(tmp_path.iterdir())) == 1


def test_dwarf_of_xen_agrees_with_xen(dump_file: Path, tmp_path: pathlib.Path) -> None:
    dump = native.Dump(dump_file("xen417-mixed-pcpus/vmcore"))
    (text,) = (note.fields["text"] for note in dump.notes if note.kind == "vmcoreinfo_xen")
    types = native.Image(dump_file("xen417-mixed-pcpus/xen-syms")).types(tmp_path)
    offsets, sizes = vmcoreinfo(text, "OFFSET"), vmcoreinfo(text, "SIZE")
    assert set(offsets) >= {"domain.domain_id", "domain.next_in_list"}
    for path, offset in offsets.items():
        name = {"page_info._domain": "page_info.v.inuse._domain"}.get(path, path)
        assert types.offset(name) == offset, path
    for name, size in sizes.items():
        assert types.sizeof(name) == size, name
    assert types.member("vcpu.domain").type_name == "struct domain *"
    assert types.member("domain.vcpu").type_name == "struct vcpu **"


def test_an_unusable_cache_is_ignored(dump_file: Path, tmp_path: pathlib.Path) -> None:
    image = native.Image(dump_file("xen417-mixed-pcpus/xen-syms"))
    (tmp_path / "file").write_text("not a directory")
    assert "domain" in image.types(tmp_path / "file" / "folder")


def test_no_types_is_absent(dump_file: Path) -> None:
    with pytest.raises(native.AbsentError, match="BTF"):
        native.Image(dump_file("vmlinux-6.1.0-50-686")).types()
