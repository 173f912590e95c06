"""``Domain.as_bare()``: synthetic PV domains as bare machines."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import xenkdump_fast as xk
import xenkdump_forge
from xenkdump_fast import _native
from xenkdump_fast.linux.mm import page_table

PAGE = 4096
KINDS = ("2006", "2006-pae", "2006-x86_64", "xen3", "32on64", "modern")
MEMORY = 64 << 20
#: Xen's part of the address space of a 64-bit PV guest.
XEN = 0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000

Opened = Callable[[str], xk.Domain]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("bare") / kind
            xenkdump_forge.write_dump(made[kind], kind, memory=None if kind == "2006" else MEMORY)
        return made[kind]

    return get


@pytest.fixture(scope="module")
def opened(directory: Callable[[str], Path]) -> Opened:
    domains: dict[str, xk.Domain] = {}

    def get(kind: str) -> xk.Domain:
        if kind not in domains:
            dump = xk.open(directory(kind) / "vmcore")
            domains[kind] = dump.domain(0, directory(kind) / "vmlinux")
        return domains[kind]

    return get


def own_root(domain: xk.Domain, machine: xk.BareMachine) -> int:
    """The machine address of the domain's top table."""
    return int(domain.p2m.resolve(machine.root // PAGE)) * PAGE + machine.root % PAGE


def pages(space: _native.AddressSpace) -> Iterator[tuple[int, int]]:
    """Every mapped page of 4 KiB and the address in the tables that it has."""
    for held in space.iter_mapped():
        for address in range(held.address, held.address + held.size, PAGE):
            yield address, space.translate(address)


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_mapped_to_its_pfn(kind: str, opened: Opened) -> None:
    domain = opened(kind)
    machine = domain.as_bare()
    before = domain.dump.native.virtual(own_root(domain, machine), machine.paging)
    expected = {}
    foreign = 0
    for address, found in pages(before):
        if XEN[0] <= address < XEN[1]:
            # Its linear page tables are frames of the domain, too.
            foreign += 1
            continue
        try:
            expected[address] = domain.p2m.reverse(found // PAGE) * PAGE + found % PAGE
        except xk.AbsentError:
            foreign += 1
    assert dict(pages(machine.virtual)) == expected
    assert len(expected) > 100
    # Xen's part of the address space, and the shared_info page.
    assert foreign > 0


@pytest.mark.parametrize("kind", KINDS)
def test_memory_beside_page_tables_is_the_same(kind: str, opened: Opened) -> None:
    domain = opened(kind)
    machine = domain.as_bare()
    assert machine.tables is not None
    special = {pfn for pfn, _ in machine.tables.tables()}
    special |= {word.address // PAGE for word in machine.altered}
    compared = 0
    for first, count in machine.runs().tolist():
        for pfn in range(first, first + count):
            if pfn not in special:
                page = machine.memory.read(pfn * PAGE, PAGE)
                assert page == domain.physical.read(pfn * PAGE, PAGE), hex(pfn)
                compared += 1
    assert compared > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_pages_and_batches(kind: str, opened: Opened) -> None:
    """Reads of any size and alignment, and all kinds of batches, give the same bytes."""
    machine = opened(kind).as_bare()
    assert machine.tables is not None
    random = np.random.default_rng(7)
    pfns = [pfn for pfn, _ in machine.tables.tables()]
    pfns += [word.address // PAGE for word in machine.altered]
    for pfn in random.choice(pfns, min(len(pfns), 24), replace=False).tolist():
        whole = machine.memory.read(pfn * PAGE, PAGE)
        ends = np.sort(random.integers(0, PAGE + 1, 40)).tolist()
        parts = zip([0, *ends], [*ends, PAGE], strict=True)
        read = [machine.memory.read(pfn * PAGE + start, end - start) for start, end in parts]
        assert b"".join(read) == whole
        for size in (1, 3, 4, 8, 24, 4096):
            starts = random.integers(0, PAGE - size + 1, 50).astype(np.uint64)
            rows = machine.memory.read_many(starts + np.uint64(pfn * PAGE), size)
            expected = [whole[at : at + size] for at in starts.tolist()]
            assert [bytes(row) for row in rows] == expected
        assert machine.memory.read_array(pfn * PAGE, "u1", PAGE).tobytes() == whole
    addresses = np.array([address for address, _ in pages(machine.virtual)], np.uint64)
    translated = machine.virtual.translate(addresses)
    assert translated.tolist() == [found for _, found in pages(machine.virtual)]


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_cache(kind: str, opened: Opened) -> None:
    """A table read for the first time in parts, before the page is rewritten as a whole."""
    domain = opened(kind)
    known = domain.as_bare()
    assert known.tables is not None
    root = own_root(domain, known)
    native, tables = domain.dump.native.bare(domain.p2m, known.paging, [root])
    fresh = native.machine
    pfns = [pfn for pfn, _ in tables.tables()]
    for pfn in pfns[:32]:
        first = fresh.read(pfn * PAGE + 1001, 30)
        assert first == known.memory.read(pfn * PAGE, PAGE)[1001:1031]


@pytest.mark.parametrize("kind", KINDS)
def test_user_memory(kind: str, opened: Opened) -> None:
    domain = opened(kind)
    machine = domain.as_bare()
    users = 0
    for task in domain.kernel.tasks():
        try:
            own = domain.user(task)
        except xk.AbsentError:
            with pytest.raises(xk.AbsentError):
                machine.user(task)
            continue
        users += 1
        pgd = machine.virtual.translate(page_table(domain.kernel, task))
        assert machine.user(task).root == pgd
        stack = domain.kernel.symbol("linux_banner")
        assert machine.user(task).read(stack, 16) == own.read(stack, 16)
    assert users > 0


@pytest.mark.parametrize("kind", KINDS)
def test_registers_and_roots(kind: str, opened: Opened) -> None:
    domain = opened(kind)
    machine = domain.as_bare()
    assert machine.word == domain.kernel.word
    banner = domain.kernel.symbol("linux_banner")
    assert machine.virtual.read(banner, 14) == b"Linux version "
    assert machine.cpus or kind == "2006"
    for cpu in machine.cpus:
        assert cpu.registers
        root = cpu.control.get("cr3")
        if root is not None:
            space = machine.native.virtual(root, machine.paging)
            assert space.translate(banner) == machine.virtual.translate(banner)
    assert [cpu.number for cpu in machine.cpus] == sorted(domain.kernel.contexts)


def test_altered_words(opened: Opened) -> None:
    """In ordinary pages and in tables, also if a read has a part of one."""
    domain = opened("modern")
    machine = domain.as_bare()
    table = machine.root + 8 * 300
    plain = machine.virtual.translate(domain.kernel.symbol("linux_banner")) & -8
    words = [(plain, 0x1122334455667788, 8), (table, 0, 8), (plain + 12, 0xAABBCCDD, 4)]
    native, _ = domain.dump.native.bare(
        domain.p2m, "x86_64", [own_root(domain, machine)], altered=words
    )
    expected = bytearray(machine.memory.read(plain, 64))
    expected[:8] = bytes.fromhex("8877665544332211")
    expected[12:16] = bytes.fromhex("ddccbbaa")
    assert native.machine.read(plain + 3, 2) == expected[3:5]
    assert native.machine.read(plain + 7, 7) == expected[7:14]
    assert native.machine.read(plain, 64) == expected
    assert native.machine.read(table - 8, 24)[8:16] == bytes(8)


class Renamed:
    """The symbols of a kernel, and more."""

    def __init__(self, symbols: _native.Symbols, more: dict[str, int]) -> None:
        self._symbols = symbols
        self._more = more

    def get(self, name: str) -> int | None:
        return self._more.get(name, self._symbols.get(name))

    def __contains__(self, name: str) -> bool:
        return name in self._more or name in self._symbols

    def __getattr__(self, name: str) -> object:
        return getattr(self._symbols, name)


def test_pv_init_ops_is_hidden_if_it_is_xens(
    directory: Callable[[str], Path], opened: Opened
) -> None:
    """Of kernels before 4.20: its first member is the function that patches call sites."""
    kernel = opened("modern").kernel
    address = kernel.symbol("linux_banner") & -8
    value = kernel.pointer(address)
    for patch, hidden in (("xen_patch", True), ("native_patch", False)):
        folder = directory("modern")
        domain = xk.open(folder / "vmcore").domain(0, folder / "vmlinux")
        more = {"pv_init_ops": address, patch: value}
        domain.kernel.symbols = Renamed(domain.kernel.symbols, more)  # type: ignore[assignment]
        assert value != 0
        machine = domain.as_bare()
        assert [word.original for word in machine.altered] == [value] * hidden
        assert machine.virtual.u64(address) == (0 if hidden else value)
        assert all("pv_init_ops" in word.reason for word in machine.altered)


def test_a_bare_machine_is_its_own_view(opened: Opened) -> None:
    domain = opened("modern")
    assert domain.as_bare() is domain.as_bare()
    assert "page tables" in repr(domain.as_bare())
    again = pickle.loads(pickle.dumps(domain))
    assert again.as_bare().root == domain.as_bare().root


def test_vmcoreinfo_is_the_kernels(opened: Opened) -> None:
    machine = opened("modern").as_bare()
    assert machine.vmcoreinfo.startswith(b"OSRELEASE=6.1.0-56-amd64\n")


@pytest.mark.parametrize("kind", ["modern", "32on64"])
def test_a_save_file_is_its_own_view(kind: str, tmp_path: Path, opened: Opened) -> None:
    host = opened(kind).as_bare()
    banner = host.domain.kernel.symbol("linux_banner")
    dump = xenkdump_forge.write_dump(tmp_path, kind, memory=MEMORY, format="xl-save")
    domain = xk.open(dump.vmcore).domain(0, dump.vmlinux)
    machine = domain.as_bare()
    assert machine.tables is None
    assert machine.virtual.read(banner, 64) == host.virtual.read(banner, 64)
    assert machine.virtual.translate(banner) == host.virtual.translate(banner)
    assert machine.root == host.root
    assert machine.runs()[:, 1].sum() > 1000


def test_roots_and_words_that_are_wrong(opened: Opened) -> None:
    domain = opened("modern")
    native = domain.dump.native
    dump, tables = native.bare(domain.p2m, "x86_64", [2**64 - 1, 0, 1 << 51])
    assert (len(tables), tables.foreign_roots) == (0, 3)
    assert dump.machine.read(PAGE, 64) == domain.physical.read(PAGE, 64)
    with pytest.raises(ValueError, match="no paging layout"):
        native.bare(domain.p2m, "arm", [])  # type: ignore[arg-type]
    for word in ((4, 0, 8), (0, 0, 3), (0, 0, 16)):
        with pytest.raises(ValueError, match="aligned words"):
            native.bare(domain.p2m, "x86_64", [], altered=[word])
    with pytest.raises(xk.MemoryFault):
        dump.machine.read(2**64 - 8, 8)
    space = native.virtual(0, "x86_64")
    with pytest.raises(ValueError, match="4 or 8 bytes"):
        native.bare(domain.p2m, "x86_64", [], frame_table=(space, 0, 1, 32, 16, 3))
    wild = (space, 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1, 8)
    _, tables = native.bare(
        domain.p2m, "x86_64", [own_root(domain, domain.as_bare())], frame_table=wild
    )
    assert tables.typed is None
    assert tables.walked > 0
