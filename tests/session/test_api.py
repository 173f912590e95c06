"""The Python API of sessions: P2M, ids and names of domains, closing, pickling, reprs."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import xenkdump_fast as xk
import xenkdump_forge
from xenkdump_fast import _native
from xenkdump_fast.session import Domain, Dump

Sample = Callable[[str], Path]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Gives the directory of a synthetic dump."""
    made: dict[str, Path] = {}

    def directory(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("api") / kind
            xenkdump_forge.write_dump(made[kind], kind)
        return made[kind]

    return directory


def opened(directory: Path) -> Domain:
    return xk.open(directory / "vmcore").domain(0, directory / "vmlinux")


def bare(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    """A domain that is treated as a bare machine, without a vmlinux."""
    dump = xk.open(directory / "vmcore")
    monkeypatch.setattr(dump, "is_xen_host", False)
    return dump.domain()


def test_a_p2m_is_there_or_raises(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    dom0 = opened(sample("modern"))
    assert dom0.has_p2m
    assert dom0.p2m.source == "list"
    machine = bare(sample("modern"), monkeypatch)
    assert not machine.has_p2m
    with pytest.raises(xk.AbsentError, match="pseudo-physical addresses are machine addresses"):
        _ = machine.p2m
    assert machine.physical.kind == "pseudo-physical"


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (0, 0),
        (np.int64(1), 1),
        ("0", 0),
        ("1", 1),
        ("Domain-0", 0),
        ("aiko.lab.example", 0),
        ("domu1.lab.example", 1),
        ("DOMU1.lab.example", 1),
        ("domu1", 1),
        ("dom0", 0),
        ("d1", 1),
        ("Dom1", 1),
        ("domain-1", 1),
        ("Domain1", 1),
    ],
)
def test_domains_by_id_and_by_name(given: int | str, number: int, sample: Sample) -> None:
    directory = sample("modern")
    domain = xk.open(directory / "vmcore").domain(given, directory / "vmlinux")
    assert domain.id == number
    assert domain.kernel.release == "6.1.0-56-amd64"


@pytest.mark.parametrize("given", ["2", "-1", 7])
def test_an_id_that_does_not_exist(given: int | str, sample: Sample) -> None:
    with pytest.raises(xk.AbsentError, match=rf"no domain {given}; domains: 0, 1$"):
        xk.open(sample("modern") / "vmcore").domain(given)


@pytest.mark.parametrize("given", ["", "domu", "١", "1_0", "00000000-0000-0000-0000-000000000000"])
def test_a_name_that_does_not_exist(given: str, sample: Sample) -> None:
    expected = f"no domain {given!r}; domains: 0 (aiko.lab.example), 1 (domu1.lab.example)"
    with pytest.raises(xk.AbsentError, match=re.escape(expected)):
        xk.open(sample("modern") / "vmcore").domain(given)


def test_a_name_on_a_bare_machine(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = bare(sample("modern"), monkeypatch).dump
    assert isinstance(dump, Dump)
    assert dump.domain("0").id == 0
    assert dump.domain("dom0").id == dump.domain("Domain-0").id == 0
    for name in ("aiko", "dom1"):
        with pytest.raises(xk.AbsentError, match=f"no domain '{name}': not the dump of a Xen host"):
            dump.domain(name)


@pytest.mark.parametrize("given", ["dom2", "d7", "d-1", "xdom0", "dom", "dom01x"])
def test_a_number_of_no_domain(given: str, sample: Sample) -> None:
    with pytest.raises(xk.AbsentError, match="The names of xl are not in the dump"):
        xk.open(sample("modern") / "vmcore").domain(given)


def test_similar_names(sample: Sample) -> None:
    with pytest.raises(xk.AbsentError, match=r"; did you mean domu1\.lab\.example\?$"):
        xk.open(sample("modern") / "vmcore").domain("domu1.lab.exmple")


def test_a_name_precedes_a_number(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    from xenkdump_fast.session import domain_id

    monkeypatch.setattr(domain_id, "_names", lambda domain: iter([f"dom{1 - domain.id}"]))
    dump = xk.open(sample("modern") / "vmcore")
    assert (dump.domain("dom0").id, dump.domain("dom1").id) == (1, 0)


def test_a_name_of_two_domains(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    from xenkdump_fast.session import domain_id

    monkeypatch.setattr(domain_id, "_names", lambda domain: iter(["same"]))
    with pytest.raises(xk.AbsentError, match="domains 0, 1 are all named 'same': give the id"):
        xk.open(sample("modern") / "vmcore").domain("same")


@pytest.mark.parametrize("given", [None, 0.0, True, b"0", Path("0")])
def test_other_types_of_id(given: object, sample: Sample) -> None:
    dump = xk.open(sample("modern") / "vmcore")
    with pytest.raises(TypeError, match=r"by its id \(an int\) or a name \(a str\), not by a"):
        dump.domain(given)  # type: ignore[arg-type]


def test_closing(sample: Sample) -> None:
    with xk.open(sample("modern") / "vmcore") as dump:
        dom0 = dump.domain(0, sample("modern") / "vmlinux")
        virtual, banner = dom0.virtual, dom0.kernel.symbols["linux_banner"]
        assert virtual.read(banner, 5) == b"Linux"
    for use in (
        lambda: virtual.read(banner, 5),
        lambda: dump.machine.read(0, 1),
        lambda: dom0.p2m.resolve(0),
        lambda: dom0.kernel.string(banner),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    dump.close()
    with pytest.raises(RuntimeError, match="inside"), xk.open(sample("modern") / "vmcore") as dump:
        raise RuntimeError("inside")
    with pytest.raises(ValueError, match="closed"):
        dump.machine.read(0, 1)


def test_pickling(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample("modern"))
    dump = xk.open(Path("vmcore"))
    domains = [
        dump.domain(1, "vmlinux", p2m_source="linear", unwind=iter(["scan"])),  # type: ignore[arg-type]
        dump.domain(0),
    ]
    dump.warn("of before")
    again, (guest, dom0) = pickle.loads(pickle.dumps((dump, domains)))
    assert (again.path, guest.id, dom0.id) == ("vmcore", 1, 0)
    assert again.warnings == []
    # One dump, as before.
    assert guest.dump is dom0.dump is again
    assert guest.p2m.source == "linear"
    assert guest.kernel.unwinder.methods == ["scan"]
    assert guest.kernel.tasks() == domains[0].kernel.tasks()
    assert dom0.kernel.tasks() == domains[1].kernel.tasks()
    packed = pickle.dumps(guest)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        pickle.loads(packed)


def test_reprs(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sample("modern"))
    dump = xk.open("vmcore")
    dom0 = dump.domain(0, "vmlinux")
    kernel = dom0.kernel
    task = kernel.tasks()[-1]
    shown: list[tuple[object, str]] = [
        (dump, "<Dump 'vmcore': ELF64 vmcore of a Xen host>"),
        (dom0, "<Domain 0 of 'vmcore': P2M by list, 'vmlinux'>"),
        (dump.domain(0), "<Domain 0 of 'vmcore': P2M by list, no vmlinux>"),
        (kernel, "<Linux 'vmlinux': x86_64, slide 0x0>"),
        (dump.xen(), "<XenHost of 'vmcore': 2 pCPUs, no symbols>"),
        (dump.xen().domain(1), "<HostDomain 1 of 'vmcore'>"),
        (kernel.symbols, f"<Symbols: {len(kernel.symbols)} symbols, slide 0x0>"),
        (iter(kernel.symbols), "<SymbolIterator>"),
        (kernel.unwinder, "<Unwinder: orc, fp, scan>"),
        (dom0.virtual.iter_mapped(), "<MappedRanges: 0 page tables missing so far>"),
    ]
    assert [repr(found) for found, _ in shown] == [text for _, text in shown]
    assert repr(kernel.backtrace(task)).startswith(f"Trace(task=Task(address={task.address}, ")
    frame = kernel.backtrace(task).frames[0]
    unwound = kernel.unwinder.unwind({"rip": frame.pc, "rsp": 8})
    assert re.fullmatch(r"<Backtrace: 1 frames, stopped: .*>", repr(unwound))


def test_the_repr_of_a_dump_reads_no_memory(sample: Sample) -> None:
    dump = xk.open(sample("modern") / "vmcore")
    before = repr(dump)
    dump.close()
    assert repr(dump) == before
    assert before.endswith(": ELF64 vmcore of a Xen host>")


def test_every_public_object_has_a_repr() -> None:
    classes = [found for found in vars(_native).values() if isinstance(found, type)]
    assert len(classes) > 15
    classes = [found for found in classes if not issubclass(found, Exception)]
    assert [found.__name__ for found in classes if "__repr__" not in vars(found)] == []


def test_symbols_are_iterated_over(sample: Sample) -> None:
    kernel = opened(sample("modern")).kernel
    for symbols in (kernel.symbols, kernel.code):
        every = list(symbols)
        assert len(every) == len(symbols) > 100
        addresses = [symbol.address for symbol in every if symbol.module is None]
        assert addresses == sorted(addresses)
        for symbol in every:
            assert symbol in symbols.all(symbol.name)
    lazy = iter(kernel.symbols)
    assert next(lazy) == next(iter(kernel.symbols))
    assert len(list(lazy)) == len(kernel.symbols) - 1
    assert next(lazy, None) is None


def test_symbols_of_modules_are_iterated_over(sample: Sample) -> None:
    kernel = opened(sample("modern")).kernel
    before = len(kernel.code)
    running = iter(kernel.code)
    next(running)
    _ = kernel.unwinder  # reads the modules
    modules = [symbol for symbol in kernel.code if symbol.module is not None]
    assert len(modules) == len(kernel.code) - before > 0
    assert len(list(running)) == before - 1
    assert all(kernel.code.lookup(symbol.address) for symbol in modules)


def test_reading_what_is_no_number(sample: Sample) -> None:
    kernel = opened(sample("modern")).kernel
    task = kernel.tasks()[-1]
    with pytest.raises(xk.AbsentError, match="it has 16 bytes; string") as caught:
        kernel.read(task.address, "task_struct.comm")
    method = re.search(r"string\(address \+ offset\('task_struct.comm'\), 16\)", str(caught.value))
    assert method is not None
    scope = {"string": kernel.string, "offset": kernel.offset, "address": task.address}
    assert eval(method[0], scope) == task.comm
