"""The table of types of variables agrees with the symbols and the types of real kernels."""

import re
from collections.abc import Callable

import pytest

import xenkdump_fast as xk
from xenkdump_fast._native import AbsentError, Image
from xenkdump_fast.linux.variables import TYPES, type_of

from .conftest import VMLINUX

pytestmark = pytest.mark.real

VERSIONS = {
    "vmlinux-6.1.0-56-amd64": (6, 1),
    "vmlinux-6.1.0-50-686-pae": (6, 1),
    "vmlinux-6.12.117": (6, 12),
    "vmlinux-7.3.4": (7, 3),
}
#: Symbols without a size, and a struct with an array behind it.
NO_SIZE = {"jiffies", "init_thread_union", "init_mm"}
#: Variables whose type is known for one word size only.
ONE_WORD_SIZE = {"mem_section"}
SCALARS = {"int": 4, "unsigned int": 4, "char": 1}


@pytest.mark.parametrize("vmlinux", VERSIONS)
def test_sizes(dump_file: Callable[[str], str], vmlinux: str) -> None:
    image = Image(dump_file(vmlinux))
    symbols, types = image.symbols(), image.types()
    sizes = {**SCALARS, "long": image.word, "unsigned long": image.word}
    compared = 0
    for name in TYPES.keys() - NO_SIZE:
        known = symbols.all(name)
        found = type_of(name, VERSIONS[vmlinux], image.word)
        if not known or (image.word == 4 and name in ONE_WORD_SIZE):
            continue
        assert found is not None, name
        if found.startswith("struct {"):
            continue  # its members are those of the kernel's types
        plain = re.sub(r"\b(const|volatile) ?", "", found)
        base, pointer, array = re.fullmatch(r"(.*?) ?(\*)?(?: ?(\[\]))?", plain).groups()  # type: ignore[union-attr]
        size = image.word if pointer else sizes.get(base) or types.sizeof(base)
        for symbol in known:
            if not symbol.size:  # of an assembly source
                continue
            assert symbol.size % size == 0, name
            assert array or symbol.size == size, name
        compared += 1
    assert compared > 100


@pytest.mark.parametrize("name", ["bare-x86_64", "linux73-bare"])
def test_of_a_kernel(dump_file: Callable[[str], str], name: str) -> None:
    kernel = xk.open(dump_file(f"{name}/vmcore")).domain(0).kernel
    for variable, expected in {
        "runqueues": "struct rq",  # by BTF
        "current_task": "struct task_struct *",
        "modules": "struct list_head",  # by the table
        "saved_command_line": "char *",
    }.items():
        assert kernel.variable_type(variable) == expected
    with pytest.raises(AbsentError, match="the type of the variable no_such is not known"):
        kernel.variable_type("no_such")
    assert name in VMLINUX or kernel.version[:2] == (6, 1)


def test_versions() -> None:
    assert type_of("saved_command_line", (2, 6, 20)) == "char []"
    assert type_of("saved_command_line", (2, 6, 21, 3)) == "char *"
    assert type_of("saved_command_line", ()) is None
    assert type_of("prb", (5, 9)) is None
    assert type_of("init_task", ()) == "struct task_struct"
    assert type_of("mem_section", (6, 1), 8) == "struct mem_section **"
    assert type_of("mem_section", (4, 14), 8) == "struct mem_section *[]"
    assert type_of("mem_section", (6, 1), 4) is None
    assert type_of("irq_desc_tree", (4, 19)) == "struct radix_tree_root"
