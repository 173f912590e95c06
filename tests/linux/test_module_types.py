"""Types of modules, by a list of struct btf_modules in fake memory."""

from types import SimpleNamespace
from typing import Any

import pytest

from xenkdump_fast import AbsentError
from xenkdump_fast.limits import MAX_BTF_SIZE
from xenkdump_fast.linux import module_types, modules

from .fakes import FakeKernel, FakeMember, FakeTypes, words

HEAD = 0xFFFF_FFFF_8200_0000
#: struct btf_modules, struct btfs, their data, and struct modules.
ENTRIES, BTFS, DATA, MODULES = (0xFFFF_8880_0000_0000 + i * 0x10000 for i in range(4))
LAYOUT: dict[str, int | FakeMember] = {
    "btf_module": 64,
    "btf_module.list": FakeMember(0, 16),
    "btf_module.module": FakeMember(16, 8),
    "btf_module.btf": FakeMember(24, 8),
    "btf.data": FakeMember(0, 8),
    "btf.data_size": FakeMember(40, 4),
    "module.btf_data": FakeMember(0, 8),
    "module.btf_base_data": FakeMember(8, 8),
    "module.btf_data_size": FakeMember(16, 4),
}
NAMES = ("first", "second", "third")


class BaseTypes(FakeTypes):
    """Types of a kernel that return the data of a module."""

    source = "BTF"

    def split(self, data: bytes) -> Any:
        return data


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """A kernel with three modules; it has no BTF of the last."""
    made = FakeKernel({"btf_modules": HEAD})
    made.__dict__["types"] = BaseTypes(LAYOUT)
    nodes = [HEAD, ENTRIES, ENTRIES + 64]
    for i, node in enumerate(nodes):
        links = nodes[(i + 1) % 3], nodes[i - 1]
        made.memory.write(node, words(8, *links, MODULES + (i - 1) * 64, BTFS + (i - 1) * 64))
    for i in range(2):
        made.memory.number(BTFS + i * 64, DATA + i * 16, 8)
        made.memory.number(BTFS + i * 64 + 40, 5 + i, 4)
    made.memory.write(MODULES, bytes(256))
    made.memory.write(DATA, b"one..".ljust(16) + b"two...".ljust(16) + b"three")
    found = [SimpleNamespace(address=MODULES + i * 64, name=n) for i, n in enumerate(NAMES)]
    monkeypatch.setattr(modules, "modules", lambda _: iter(found))
    return made


def found(kernel: FakeKernel, name: str) -> Any:
    """What ``BaseTypes.split`` got."""
    return module_types.types_of(kernel, name)


def test_the_list_leads_to_the_data_of_each(kernel: FakeKernel) -> None:
    assert found(kernel, "first") == b"one.."
    assert found(kernel, "second") == b"two..."
    with pytest.raises(AbsentError, match="module third: the kernel has no BTF of it"):
        module_types.types_of(kernel, "third")
    with pytest.raises(AbsentError, match="no module fourth"):
        module_types.types_of(kernel, "fourth")


def test_a_module_that_is_being_loaded(kernel: FakeKernel) -> None:
    """With a base of its own the data is not yet adapted to the kernel's."""
    kernel.memory.write(MODULES + 128, words(8, DATA + 32, 0, 5))
    assert found(kernel, "third") == b"three"
    kernel.memory.number(MODULES + 128 + 8, DATA, 8)
    with pytest.raises(AbsentError, match="module third: the kernel has no BTF of it"):
        module_types.types_of(kernel, "third")


@pytest.mark.parametrize("size", [0, MAX_BTF_SIZE + 1])
def test_damaged_sizes(kernel: FakeKernel, size: int) -> None:
    kernel.memory.number(BTFS + 40, size, 4)
    with pytest.raises(AbsentError, match=f"module first: its BTF has {size} bytes"):
        module_types.types_of(kernel, "first")


def test_data_that_is_not_in_the_dump(kernel: FakeKernel) -> None:
    kernel.memory.number(BTFS, 0x1000, 8)
    with pytest.raises(AbsentError, match="module first: 0x1000 is not mapped"):
        module_types.types_of(kernel, "first")


def test_a_damaged_list_ends_with_a_warning(kernel: FakeKernel) -> None:
    kernel.memory.number(ENTRIES + 64, ENTRIES, 8)
    assert found(kernel, "second") == b"two..."
    with pytest.raises(AbsentError, match="no BTF of it"):
        module_types.types_of(kernel, "third")
    assert kernel.warnings


@pytest.mark.parametrize("distance", [8, 32, 63])
def test_entries_in_the_memory_of_others(kernel: FakeKernel, distance: int) -> None:
    """The list goes on within a struct that it already had: what follows is not believed."""
    inside = ENTRIES + distance
    kernel.memory.number(ENTRIES, inside, 8)
    assert found(kernel, "first") == b"one.."
    with pytest.raises(AbsentError, match="module second: the kernel has no BTF of it"):
        module_types.types_of(kernel, "second")
    text = f"the struct btf_module at {inside:#x} overlaps that at {ENTRIES:#x}"
    assert any(text in warning for warning in kernel.warnings)
