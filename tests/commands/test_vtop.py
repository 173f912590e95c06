"""``vtop``: operands, and the page tables of a task."""

import json
import re

import pytest

from xenkdump_fast.cli import main
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("vtop") / "dump", like="modern")


def run(
    synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    status = main(["vtop", str(synthetic.vmlinux), str(synthetic.vmcore), *words])
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    ("operand", "offset"),
    [
        ("init_task", 0),
        ("init_task+8", 8),
        ("init_task+10", 10),
        ("init_task+0x10", 16),
        ("init_task+0X1f", 31),
        ("init_task+0", 0),
    ],
)
def test_offsets(
    operand: str, offset: int, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(synthetic, capsys, "--json", "init_task", operand)
    assert status == 0
    base, found = (int(address["virtual"], 16) for address in json.loads(out)["addresses"])
    assert found == base + offset


@pytest.mark.parametrize(
    ("operand", "problem"),
    [
        ("init_task+", "'' is no offset"),
        ("init_task+1c", "'1c' is no offset: decimal, or hex with 0x"),
        ("init_task+-8", "'-8' is no offset"),
        ("init_task+1_0", "'1_0' is no offset"),
        ("init_task+١", "is no offset"),
        ("init_task+99999999999999999999", "is no offset"),
        ("init_task+0xffffffffffffffff", "neither an address nor a symbol"),
        ("no_such_symbol+8", "neither an address nor a symbol"),
        ("ffffffff81_000000", "neither an address nor a symbol"),
        ("١٢٣", "neither an address nor a symbol"),
        ("+8", "neither an address nor a symbol"),
        ("-8", "neither an address nor a symbol"),
    ],
)
def test_wrong_operands(
    operand: str, problem: str, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(synthetic, capsys, "--", operand)
    assert (status, out) == (1, "")
    assert problem in err


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("2", "task 2 at 0x[0-9a-f]+ has no user space"),
        ("99999", "domain 0 has no task 99999"),
        ("swapper", "swapper names more than one process|has no user space"),
    ],
)
def test_tasks_without_user_space(
    task: str, problem: str, synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(synthetic, capsys, "--pid", task, "400000")
    assert (status, out) == (1, "")
    assert re.search(problem, err)


def test_an_unmapped_address_of_a_task(
    synthetic: SyntheticDump, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(synthetic, capsys, "-c", "1340", "400000")
    assert status == 1
    assert re.search(r"^400000 +\(not mapped\)$", out, re.MULTILINE)
    assert "0x400000 is not mapped: virtual address" in err


@pytest.mark.parametrize(
    ("operands", "mapped"),
    [
        (["1000", "2000"], [False, False]),
        (["init_task", "1000"], [True, False]),
        (["1000", "init_task", "2000", "no_such_symbol"], [False, True, False]),
    ],
)
def test_every_unmapped_address_is_named(
    operands: list[str],
    mapped: list[bool],
    synthetic: SyntheticDump,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = run(synthetic, capsys, "--json", *operands)
    assert status == 1
    found = json.loads(out)
    assert [address["mapped"] for address in found["addresses"]] == mapped
    for operand in set(operands) - {"init_task"}:
        problem = "neither" if operand == "no_such_symbol" else f"0x{operand} is not mapped: "
        assert problem in found["failure"]
        assert problem in err

    status, out, _ = run(synthetic, capsys, *operands)
    assert status == 1
    assert out.count("(not mapped)") == mapped.count(False)
    assert out.count("VIRTUAL") == len(mapped)


def test_machine_addresses_without_a_p2m(
    synthetic: SyntheticDump, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Page tables of a PV domain hold mfns; a machine address is not taken for a physical one."""
    _, with_p2m, _ = run(synthetic, capsys, "init_task")
    machine, physical = re.findall(r"PAGE: (\w+)", with_p2m)[-2:]
    monkeypatch.setattr("xenkdump_fast.session.domain.Domain._chosen_p2m", property(lambda _: None))
    _, out, _ = run(synthetic, capsys, "--json", "init_task")
    (address,) = json.loads(out)["addresses"]
    assert address["physical"] is None
    _, text, _ = run(synthetic, capsys, "init_task")
    assert f"PAGE: {machine} " in text
    assert f"PAGE: {physical}" not in text
    assert " MACHINE " in text
