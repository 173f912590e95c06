"""The i386 kinds; ``2006`` has the addresses of the message of June 2006."""

from collections.abc import Callable
from typing import Any

import pytest

from xenkdump_forge import SyntheticDump, SyntheticDumpError, build

from .walk import Core

KINDS = ["2006", "2006-pae", "shadow", "xen3"]
PAGING = {"2006": "x86", "2006-pae": "x86-pae", "shadow": "x86", "xen3": "x86-pae"}


@pytest.fixture(scope="module", params=KINDS)
def dump(request: pytest.FixtureRequest, dump_of: Callable[[str], SyntheticDump]) -> SyntheticDump:
    return dump_of(request.param)


@pytest.fixture(scope="module")
def core(dump: SyntheticDump, core_of: Callable[[str], Core]) -> Core:
    return core_of(dump.plan["kind"])


@pytest.fixture(scope="module")
def dom0(dump: SyntheticDump) -> dict[str, Any]:
    found: dict[str, Any] = dump.plan["domains"][0]
    return found


@pytest.fixture(scope="module")
def session(dump_of: Callable[[str], SyntheticDump]) -> dict[str, Any]:
    found: dict[str, Any] = dump_of("2006").plan["domains"][0]
    return found


def task(domain: dict[str, Any], pid: int, cpu: int = 0) -> dict[str, Any]:
    return next(t for t in domain["tasks"] if t["pid"] == pid and (pid or t["cpu"] == cpu))


def test_the_message_of_2006_idle(session: dict[str, Any]) -> None:
    swapper = task(session, 0)
    assert swapper["task"] == "0xc02ce460"
    assert swapper["switched_at"] == "0xc030ff34"
    frames = [(f["slot"], f["symbol"], f["pc"]) for f in swapper["frames"]]
    assert frames == [
        (None, "schedule", "0xc028e648"),
        ("0xc030ffb0", "cpu_idle", "0xc0103e9f"),
    ]


def test_the_message_of_2006_panic(session: dict[str, Any]) -> None:
    do_kdump = task(session, 3949)
    assert (do_kdump["task"], do_kdump["stack"]) == ("0xf3e64030", "0xf3dba000")
    kernel = [f for f in do_kdump["frames"] if not f.get("user")]
    assert [(f["slot"], f["symbol"], f["pc"]) for f in kernel[1:]] == [
        ("0xf3dbbed8", "crash_kexec", "0xc0140c45"),
        ("0xf3dbbf28", "__handle_sysrq", "0xc01f54e4"),
        ("0xf3dbbf54", "write_sysrq_trigger", "0xc019cbff"),
        ("0xf3dbbf6c", "vfs_write", "0xc0168dbf"),
        ("0xf3dbbf90", "sys_write", "0xc0169736"),
        ("0xf3dbbfb8", "system_call", "0xc0105542"),
    ]
    assert do_kdump["user_registers"] == {
        "ebx": "0x1",
        "ecx": "0x80f8408",
        "edx": "0x2",
        "esi": "0x2",
        "edi": "0xb7f007c0",
        "ebp": "0xbfb5ffe4",
        "eax": "0x4",
        "xds": "0x7b",
        "xes": "0x7b",
        "orig_eax": "0x4",
        "eip": "0xb7e93028",
        "xcs": "0x73",
        "eflags": "0x246",
        "esp": "0xbfb5ffc8",
        "xss": "0x7b",
    }
    assert do_kdump["pgd"] == "0x27227000"


def test_the_message_of_2006_header(session: dict[str, Any]) -> None:
    header = session["header"]
    assert header["tasks"] == len(session["tasks"]) == 94
    assert header["date"] == 1150297501
    assert round(header["memory_pages"] * 4096 / 2**20, 1) == 887.4
    assert session["log"][-1]["text"] == "SysRq : Trigger a crashdump"


def test_2006_needs_its_memory() -> None:
    with pytest.raises(SyntheticDumpError, match="needs at least"):
        build("2006", memory=512 << 20)


def test_notes(dump: SyntheticDump, core: Core) -> None:
    cr3 = ("Xen Domanin-0 CR3", 0x10000001, 4)
    expected = {
        "2006": [("CORE", 1, 144), cr3] * 2,
        "2006-pae": [("CORE", 1, 144), cr3] * 2,
    }.get(
        dump.plan["kind"],
        [
            *(("CORE", 1, 144), ("Xen", 0x1000002, 16), ("Xen", 0x1000001, 36)),
            *(("CORE", 1, 144), ("Xen", 0x1000002, 16)),
        ],
    )
    assert [(name, kind, len(desc)) for name, kind, desc in core.notes] == expected
    if dump.plan["kind"] == "2006":
        assert [d.hex() for _, k, d in core.notes if k == 0x10000001] == ["00000000", "27720200"]


def test_tree_array_and_plan_agree(dump: SyntheticDump, core: Core, dom0: dict[str, Any]) -> None:
    paging = PAGING[dump.plan["kind"]]
    root, top = int(dom0["root"], 16), int(dom0["frame_list_list"], 16)
    pointer = int(dom0["symbols"]["phys_to_machine_mapping"], 16)
    array = int.from_bytes(core.read(paging, root, pointer, 4), "little")
    masks = {"foreign": 1 << 31, "identity": 1 << 30, "frame": 0}
    for sampled in dom0["p2m"]["samples"]:
        pfn = int(sampled["pfn"], 16)
        expected = 0xFFFFFFFF
        if sampled["kind"] != "invalid":
            expected = int(sampled["mfn"], 16) | masks[sampled["kind"]]
        assert core.tree_entry(top, 4, pfn) == expected
        raw = core.read(paging, root, array + 4 * pfn, 4)
        assert int.from_bytes(raw, "little") == expected


def test_return_addresses_are_at_their_slots(
    dump: SyntheticDump, core: Core, dom0: dict[str, Any]
) -> None:
    paging, count = PAGING[dump.plan["kind"]], 0
    for each in dom0["tasks"]:
        for frame in each["frames"]:
            if frame["slot"] is not None:
                raw = core.read(paging, int(dom0["root"], 16), int(frame["slot"], 16), 4)
                assert int.from_bytes(raw, "little") == int(frame["pc"], 16)
                count += 1
    assert count > 350


def test_a_process_maps_the_kernel(dump: SyntheticDump, core: Core, dom0: dict[str, Any]) -> None:
    paging = PAGING[dump.plan["kind"]]
    banner = int(dom0["symbols"]["linux_banner"], 16)
    for each in dom0["tasks"]:
        if "pgd" in each:
            assert core.read(paging, int(each["pgd"], 16), banner, 14) == b"Linux version "
