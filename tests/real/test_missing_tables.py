"""Real kernels without their vmlinux, of whose own tables a page is not in the dump.

What does not depend on the page is the same, what does is reported, and no symbol is wrong.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import xenkdump_fast as xk
from xenkdump_fast.commands import ps
from xenkdump_fast.commands import sys as sys_command
from xenkdump_fast.linux.system import Linux

from .conftest import VMLINUX, X86_64
from .missing_pages import PAGE, Dump

pytestmark = pytest.mark.real

#: The tables by their symbols in vmlinux; those of a version are among them.
KALLSYMS = (
    "kallsyms_names",
    "kallsyms_num_syms",
    "kallsyms_markers",
    "kallsyms_seqs_of_names",
    "kallsyms_token_table",
    "kallsyms_token_index",
    "kallsyms_offsets",
    "kallsyms_relative_base",
)
SECTIONS = ("__start_BTF", "__start_orc_unwind_ip", "__start_orc_unwind")
REPORTED = re.compile(r"not in the dump|kallsyms, .* cannot be used")
DUMPS = ("bare-x86_64", "linux73-bare")


class Case:
    """A dump, what its vmlinux gives, and a copy to leave out pages of."""

    def __init__(self, source: str, vmlinux: str, path: Path) -> None:
        self.copy = Dump(source, path)
        domain = xk.open(source).domain(0, vmlinux)
        self.kernel, self.virtual = domain.kernel, domain.virtual
        self.tasks = self.kernel.tasks()
        self.addresses: dict[str, set[int]] = defaultdict(set)
        for symbol in self.kernel.symbols:
            self.addresses[symbol.name].add(symbol.address)
        self.pcs = sorted(
            {frame.pc for task in self.tasks for frame in self.kernel.backtrace(task).frames}
        )
        #: The symbols in memory.
        self.in_memory = xk.open(source).domain(0).kernel.symbols
        self.header = sys_command.run(domain).header

    def pages(self, name: str) -> list[int]:
        """The first, the middle and the last page of a table; none if the kernel lacks it."""
        symbols = self.kernel.symbols
        start = symbols.get(name)
        if start is None:
            return []
        stop = symbols.get(name.replace("__start", "__stop"))
        if name.startswith("kallsyms"):
            stop = min(at for symbol in symbols if (at := symbol.address) > start)
        assert stop is not None
        first, last = start // PAGE * PAGE, (stop - 1) // PAGE * PAGE
        return sorted({first, (first + last) // 2 // PAGE * PAGE, last})


@pytest.fixture(scope="module", params=DUMPS)
def case(
    request: pytest.FixtureRequest,
    dump_file: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Case]:
    vmlinux = dump_file(VMLINUX.get(request.param, X86_64))
    path = tmp_path_factory.mktemp("missing") / "vmcore"
    with pytest.MonkeyPatch.context() as patched:
        # A debug file of this kernel on the machine.
        patched.setattr("xenkdump_fast.session.debug_files.find", lambda *_: None)
        yield Case(dump_file(f"{request.param}/vmcore"), vmlinux, path)
    path.unlink()


def check_symbols(case: Case, kernel: Linux) -> int:
    """No symbol is wrong, by name or by address; returns how many addresses of code have a name."""
    wrong = [s for s in kernel.symbols if s.address not in case.addresses[s.name]]
    assert wrong == []
    named = 0
    for pc in case.pcs:
        found, expected = kernel.symbols.lookup(pc), case.in_memory.lookup(pc)
        if found is not None:
            assert expected is not None
            assert (found.name, found.address) == (expected.name, expected.address), hex(pc)
            named += 1
    return named


@pytest.mark.parametrize("table", [*KALLSYMS, *SECTIONS])
def test_a_page_is_missing(case: Case, table: str) -> None:
    pages = case.pages(table)
    if not pages:
        pytest.skip(f"this version has no {table}")
    for page in pages:
        if page == case.kernel.symbols["linux_banner"] // PAGE * PAGE:
            continue  # without its banner a kernel is not found, with a vmlinux neither
        with xk.open(case.copy.leave_out([case.virtual.translate(page)])) as dump:
            domain = dump.domain(0)
            kernel = domain.kernel
            named = check_symbols(case, kernel)
            assert kernel.tasks() == case.tasks
            assert [process.task for process in ps.run(domain).processes] == case.tasks
            header = sys_command.run(domain).header
            for field in ("cpus", "uts", "panic", "task_count"):
                assert getattr(header, field) == getattr(case.header, field), field
            for task in case.tasks:
                _ = kernel.backtrace(task).frames
            texts = [text for text in domain.warnings if REPORTED.search(text)]
            # The numbers of symbols by name are not used.
            used = table != "kallsyms_seqs_of_names" or len(kernel.symbols) < len(case.in_memory)
            assert bool(texts) == used, (hex(page), domain.warnings)
            only_exports = any("only exported symbols are known" in text for text in texts)
            assert (named == 0) == only_exports
            if table.startswith("__start"):
                assert len(kernel.symbols) == len(case.in_memory)
            elif not only_exports:
                assert len(kernel.symbols) > 0.98 * len(case.in_memory)
