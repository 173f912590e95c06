"""``rd``, ``sym``, ``dis``, ``search``: what they print of a synthetic dump, and wrong usage."""

import re

import pytest

import xenkdump_fast as xk
from tests.commands.running import Run
from xenkdump_forge import SyntheticDump, write_dump


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDump:
    return write_dump(tmp_path_factory.mktemp("memory") / "dump", like="modern")


@pytest.fixture(scope="module")
def domain(synthetic: SyntheticDump) -> xk.Domain:
    return xk.open(str(synthetic.vmcore)).domain(0, str(synthetic.vmlinux))


@pytest.fixture
def run(synthetic: SyntheticDump, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    return Run(synthetic, capsysbinary)


# rd


def test_rd_prints_words_and_characters(run: Run, domain: xk.Domain) -> None:
    at = domain.kernel.symbols["linux_banner"]
    memory = domain.virtual.read(at, 24)
    words = [int.from_bytes(memory[i : i + 8], "little") for i in range(0, 24, 8)]
    assert run("rd", "linux_banner", "3").splitlines() == [
        f"{at:16x}:  {words[0]:016x} {words[1]:016x}   {memory[:16].decode()}",
        f"{at + 16:16x}:  {words[2]:016x}{' ' * 17}   {memory[16:].decode()}",
    ]


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_rd_units(bits: int, run: Run, domain: xk.Domain) -> None:
    unit = bits // 8
    at = domain.kernel.symbols["linux_banner"]
    found = run.json("rd", f"-{bits}", "linux_banner+1", "5")
    assert found["unit"] == unit
    assert [(int(one["address"], 16), int(one["value"], 16)) for one in found["values"]] == [
        (at + 1 + i * unit, domain.virtual.word(at + 1 + i * unit, unit)) for i in range(5)
    ]


def test_rd_text_ends_at_nul(run: Run, domain: xk.Domain) -> None:
    banner = domain.kernel.string(domain.kernel.symbols["linux_banner"])
    assert run.json("rd", "-a", "linux_banner")["text"] == banner
    assert run.json("rd", "-a", "linux_banner", "5")["text"] == banner[:5]


def test_rd_up_to_an_end(run: Run) -> None:
    found = run.json("rd", "-32", "linux_banner", "-e", "linux_banner+9")
    assert len(found["values"]) == 3
    run("rd", "linux_banner", "-e", "linux_banner", expected=2)
    run("rd", "linux_banner", "2", "-e", "linux_banner+8", expected=2)


def test_rd_raw(run: Run, domain: xk.Domain) -> None:
    at = domain.kernel.symbols["linux_banner"]
    assert run.binary("rd", "-r", "-8", "linux_banner", "33") == domain.virtual.read(at, 33)


def test_rd_names_addresses(run: Run, domain: xk.Domain) -> None:
    kernel = domain.kernel
    head = kernel.symbols["init_task"] + kernel.offset("task_struct.tasks")
    (first,) = run.json("rd", "-s", f"{head:x}")["values"]
    label = kernel.code.lookup(int(first["value"], 16))
    assert (first.get("symbol") is None) == (label is None or label.size == 0)


def test_rd_of_each_kind_of_memory(run: Run, domain: xk.Domain) -> None:
    at = domain.kernel.symbols["linux_banner"]
    machine = domain.virtual.translate(at)
    physical = domain.p2m.reverse(machine >> 12) << 12 | machine & 0xFFF
    expected = f"{domain.virtual.u64(at):016x}"
    assert expected in run("rd", "-m", f"{machine:x}")
    assert expected in run("rd", "-p", f"{physical:x}")


def test_rd_ends_where_memory_is_missing(run: Run, domain: xk.Domain) -> None:
    last = max(
        (r for r in domain.virtual.iter_mapped(0xFFFF_8800_0000_0000)), key=lambda r: r.address
    )
    end = last.address + last.size
    if end >= 1 << 64:
        pytest.skip("memory is mapped up to the last address")
    found = run.json("rd", f"{end - 16:x}", "4", expected=1)
    assert len(found["values"]) == 2
    assert f"{end:#x}" in found["failure"]
    run("rd", f"{end:x}", expected=1)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["nothing"], 1),
        (["linux_banner", "0"], 2),
        (["linux_banner", "x"], 2),
        (["linux_banner", "1", "2"], 2),
        (["linux_banner", "0xffffffffff"], 2),
        (["-s", "-32", "linux_banner"], 2),
        (["-c", "no such task", "0"], 1),
        (["ffffffffffffffff", "4"], 1),
    ],
)
def test_rd_rejects(words: list[str], status: int, run: Run) -> None:
    run("rd", *words, expected=status)


# sym


def test_sym_both_directions(run: Run, domain: xk.Domain) -> None:
    at = domain.kernel.symbols["schedule"]
    assert run("sym", "schedule") == f"{at:x} (T) schedule\n"
    assert run("sym", f"{at + 5:x}") == f"{at + 5:x} (T) schedule+5\n"


def test_sym_names_the_nearest_label(run: Run, domain: xk.Domain) -> None:
    """As bt does: a label within a function comes before the function."""
    label = "entry_SYSCALL_64_after_hwframe"
    code = domain.kernel.code
    at = code[label] + 1
    covering = code.lookup(at)
    assert covering is not None
    assert covering.name == "entry_SYSCALL_64"
    assert run("sym", f"{at:x}") == f"{at:x} (T) {label}+1\n"
    assert run("sym", f"{covering.address + 1:x}").split()[2] == "entry_SYSCALL_64+1"
    assert f"<{label}+1>" in run("dis", f"{at:x}", "1")


def test_sym_names_what_bt_names(run: Run) -> None:
    frames = re.findall(r"^ *#\d+ \[\w+\] (\S+) at (\w+)", run("bt", "--all"), re.MULTILINE)
    assert "entry_SYSCALL_64_after_hwframe" in {name for name, _ in frames}
    for name, pc in set(frames):
        # The call is before the return address.
        called = f"{int(pc, 16) - 1:x}"
        assert run("sym", called).split()[2].partition("+")[0] == name


def test_sym_lists(run: Run, domain: xk.Domain) -> None:
    everything = run("sym", "-l").splitlines()
    _ = domain.kernel.unwinder
    assert len(everything) == len(domain.kernel.code)
    assert run("sym", "-q", "schedule").splitlines() == [
        line for line in everything if "schedule" in line.split()[2]
    ]
    run("sym", "-q", "no such name", expected=1)
    run("sym", "-M", "no_such_module", expected=1)
    run("sym", "-l", "schedule", expected=2)
    run("sym", expected=2)


def test_sym_neighbours(run: Run) -> None:
    everything = [line.split()[2] for line in run("sym", "-l").splitlines()]
    names = [line.split()[2] for line in run("sym", "-p", "-n", "schedule").splitlines()]
    assert names[1] == "schedule"
    assert everything.index(names[0]) < everything.index("schedule") < everything.index(names[2])


# dis


def test_dis_covers_the_function(run: Run, domain: xk.Domain) -> None:
    (symbol,) = domain.kernel.symbols.all("schedule")
    found = run.json("dis", "schedule")["instructions"]
    code = b"".join(bytes.fromhex(one["bytes"]) for one in found)
    assert code == domain.virtual.read(symbol.address, symbol.size)
    assert [one["symbol"] for one in found] == ["schedule"] * len(found)


def test_dis_parts(run: Run) -> None:
    whole = run("dis", "schedule").splitlines()
    offset = whole[2].split()[1].strip("<>:").partition("+")[2]
    at = f"schedule+{offset}"
    assert run("dis", "-r", at).splitlines() == whole[:3]
    assert run("dis", "-f", at).splitlines() == whole[2:]
    assert run("dis", at).splitlines() == whole[2:3]
    assert run("dis", "schedule", "2").splitlines() == whole[:2]
    run("dis", "-r", at, "2", expected=2)


def test_dis_notations(run: Run) -> None:
    assert any("%r" in line for line in run("dis", "schedule").splitlines())
    assert not any("%" in line for line in run("dis", "-i", "schedule").splitlines())


# search


def test_search_finds_every_aligned_word(run: Run, domain: xk.Domain) -> None:
    wanted = domain.kernel.symbols["init_task"] + domain.kernel.offset("task_struct.tasks")
    found = {int(one["address"], 16) for one in run.json("search", f"{wanted:x}")["matches"]}
    needle = wanted.to_bytes(8, "little")
    expected = domain.virtual.find(needle, 0xFFFF_8800_0000_0000, 1 << 64, limit=10_000)
    assert found == {at for at in expected if at % 8 == 0}
    assert found


def test_search_with_a_mask(run: Run, domain: xk.Domain) -> None:
    at = domain.kernel.symbols["linux_banner"]
    value = domain.virtual.u32(at & -4) ^ 0xFF
    area = ("-s", f"{at & -4:x}", "-l", "4")
    assert run("search", "-32", f"{value:x}", *area) == ""
    found = run("search", "-32", "--mask", "ff", f"{value:x}", *area)
    assert found == f"{at & -4:16x}: {value ^ 0xFF:x}\n"


def test_search_of_text(run: Run, domain: xk.Domain) -> None:
    at = domain.kernel.symbols["linux_banner"]
    found = run.json("search", "-t", "Linux version", "-s", f"{at:x}")["matches"]
    assert {"address": hex(at), "text": "Linux version", "symbol": "linux_banner", "offset": 0} in (
        found
    )
    one = run.json("search", "-t", "Linux version", "--limit", "1")["matches"]
    assert len(one) == 1


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["no_such_symbol"], 1),
        (["-16", "12345"], 2),
        (["--mask", "xyz", "1"], 2),
        (["-t", "--mask", "1", "a"], 2),
        (["-t", "-p", "a"], 2),
        (["-s", "20", "-e", "10", "1"], 2),
        (["-l", "0", "1"], 2),
        (["--limit", "0", "1"], 2),
    ],
)
def test_search_rejects(words: list[str], status: int, run: Run) -> None:
    try:
        run("search", *words, expected=status)
    except SystemExit as exit_:
        assert exit_.code == status  # noqa: PT017 - argparse ends the process
