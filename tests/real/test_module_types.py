"""Types of modules of real kernels, by the BTF that the kernel keeps of them."""

import random
from collections.abc import Callable

import pytest

import xenkdump_fast as xk
from xenkdump_fast import AbsentError, Domain
from xenkdump_fast.limits import MAX_BTF_SIZE
from xenkdump_fast.linux import module_types, modules
from xenkdump_fast.linux.system import Linux

pytestmark = pytest.mark.real

Open = Callable[[str], Domain]


def data_of(kernel: Linux, name: str) -> bytes:
    """The BTF of a module."""
    module = next(module for module in modules.modules(kernel) if module.name == name)
    found = module_types._find(kernel, module.address)
    assert found is not None
    return kernel.virtual.read(found.address, found.size)


@pytest.mark.parametrize("name", ["bare-x86_64", "xen417-dom0", "linux73-bare"])
def test_every_module_has_types(name: str, domain: Open) -> None:
    kernel = domain(name).kernel
    names = [module.name for module in modules.modules(kernel)]
    assert "virtio_blk" in names
    base = kernel.types.native
    assert base is not None
    for module in names:
        types = kernel.module_types(module)
        assert types.source == "BTF"
        assert types.sizeof("task_struct") == base.sizeof("task_struct")
    assert "virtio_blk" not in base
    own = kernel.module_types("virtio_blk")
    assert own.member("virtio_blk.vdev").type_name == "struct virtio_device *"


@pytest.mark.parametrize("name", ["bare-x86_64", "xen417-dom0"])
def test_types_describe_the_variables_of_a_module(name: str, domain: Open) -> None:
    """Its virtio_driver has its name and points to it; virtio is a module itself."""
    kernel = domain(name).kernel
    assert kernel.unwinder is not None  # reads the symbols of modules
    module = next(module for module in modules.modules(kernel) if module.name == "virtio_blk")
    types = kernel.module_types("virtio_blk")
    assert "virtio_driver" not in kernel.types
    (driver,) = (symbol.address for symbol in kernel.code.all("virtio_blk"))
    text = kernel.pointer(driver + types.offset("virtio_driver.driver.name"))
    assert kernel.cstring(text) == b"virtio_blk"
    assert kernel.pointer(driver + types.offset("virtio_driver.driver.owner")) == module.address


def test_types_without_a_vmlinux(
    dump_file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, domain: Open
) -> None:
    monkeypatch.setattr("xenkdump_fast.session.debug_files.find", lambda *_: None)
    known = domain("bare-x86_64").kernel.module_types("virtio_blk").members("virtio_blk")
    with xk.open(dump_file("bare-x86_64/vmcore")) as dump:
        kernel = dump.domain(0).kernel
        assert kernel.image.is_memory
        found = kernel.module_types("virtio_blk").members("virtio_blk")
    assert {name: (m.offset, m.type_name) for name, m in found.items()} == {
        name: (m.offset, m.type_name) for name, m in known.items()
    }


def test_btf_of_another_kernel_is_rejected(domain: Open) -> None:
    data = data_of(domain("bare-x86_64").kernel, "virtio_blk")
    other = domain("linux73-bare").kernel.types.native
    assert other is not None
    with pytest.raises(AbsentError, match="types that do not fit the known base"):
        other.split(data)


def test_damaged_btf(domain: Open) -> None:
    """Any byte may be another one, and any part may be missing."""
    kernel = domain("bare-x86_64").kernel
    data, base = data_of(kernel, "virtio_blk"), kernel.types.native
    assert base is not None
    rng = random.Random(5)
    rejected = 0
    for _ in range(500):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        end = rng.choice([len(data), rng.randrange(len(data))])
        try:
            types = base.split(bytes(damaged[:end]))
        except AbsentError:
            rejected += 1
        else:
            for struct in ("virtio_blk", "virtio_driver", "task_struct"):
                if struct in types:
                    assert types.members(struct)
    assert rejected > 250


def test_a_module_that_is_being_loaded(domain: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the kernel has its copy, struct module points to the section."""
    kernel = domain("bare-x86_64").kernel
    module = next(module for module in modules.modules(kernel) if module.name == "virtio_blk")
    known = module_types._find(kernel, module.address)
    assert known is not None
    monkeypatch.setattr(module_types, "_entries", lambda _: iter(()))
    with pytest.raises(AbsentError, match="module virtio_blk: the kernel has no BTF of it"):
        kernel.module_types("virtio_blk")
    values = {"module.btf_data": known.address, "module.btf_data_size": known.size}
    read = kernel.read
    monkeypatch.setattr(kernel, "read", lambda at, key: values.get(key) or read(at, key))
    assert "virtio_blk" in kernel.module_types("virtio_blk")
    values["module.btf_data_size"] = MAX_BTF_SIZE + 1
    with pytest.raises(AbsentError, match=f"its BTF has {MAX_BTF_SIZE + 1} bytes"):
        kernel.module_types("virtio_blk")
    values["module.btf_data_size"], values["module.btf_data"] = known.size, 0x1000
    with pytest.raises(AbsentError, match="the types of module virtio_blk: "):
        kernel.module_types("virtio_blk")


def test_modules_without_types(domain: Open) -> None:
    with pytest.raises(AbsentError, match="no module nothing"):
        domain("bare-x86_64").kernel.module_types("nothing")
    with pytest.raises(AbsentError, match="the types of modules continue the kernel's BTF"):
        domain("bare-i386-pae").kernel.module_types("loop")


def test_types_that_are_no_base(domain: Open) -> None:
    kernel = domain("bare-x86_64").kernel
    module = kernel.module_types("virtio_blk")
    with pytest.raises(AbsentError, match="needs that of its kernel"):
        module.split(data_of(kernel, "virtio_blk"))
