"""The normal form: what is left out of names, texts and stacks."""

import pytest

from xenkdump_fast.signature.log_text import signature
from xenkdump_fast.signature.normal_form import DEPTH, Function, name, panic_text


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("ext4_foo", "ext4_foo"),
        ("ext4_foo.isra.0", "ext4_foo"),
        ("ext4_foo.part.12.constprop.3", "ext4_foo"),
        ("ext4_foo.constprop.0.isra.0.cold", "ext4_foo"),
        ("ext4_foo.cold.17", "ext4_foo"),
        ("ext4_foo.llvm.1234567890123456789", "ext4_foo"),
        ("ext4_foo.__uniq.123.cfi_jt", "ext4_foo"),
        ("__x64_sys_write", "sys_write"),
        ("__do_sys_write", "sys_write"),
        ("SyS_write", "sys_write"),
        ("common/timer.c#active_timer", "active_timer"),
        ("_ZN4core3fmt5write17h0123456789abcdefE", "_ZN4core3fmt5writeE"),
        # Not a suffix of a compiler.
        ("isra", "isra"),
        ("foo.data", "foo.data"),
    ],
)
def test_names(function: str, expected: str) -> None:
    assert name(function) == expected


def test_a_panic_has_no_numbers_and_names_of_devices() -> None:
    first = panic_text("EXT4-fs (device sda1): panic forced after error 0x1f")
    second = panic_text("EXT4-fs (device dm-3): panic forced after error 0xcafe")
    assert first == second == "EXT4-fs (device #): panic forced after error #"


def test_what_was_interrupted_is_not_part_of_the_fault() -> None:
    driver = [Function("panic"), Function("driver_irq", "driver"), Function("common_interrupt")]
    idle, busy = [Function("do_idle")], [Function("ext4_write"), Function("vfs_write")]
    first = signature("panic", "broken", [driver, idle], "stack")
    second = signature("panic", "broken", [driver, busy], "stack")
    assert first == second
    assert first.normal == "panic(broken):driver_irq"
    assert first.module == "driver"


def test_an_exception_is_that_of_the_interrupted_function() -> None:
    handler = [Function(one) for one in ("panic", "oops_end", "exc_page_fault")]
    where = [Function("ext4_write"), Function("vfs_write")]
    found = signature("page-fault", None, [handler, where], "stack")
    assert found.functions == ("ext4_write", "vfs_write")


def test_a_panic_within_an_exception_is_not_that_of_the_interrupted_function() -> None:
    handler = [Function(one) for one in ("panic", "handle_mm_fault", "exc_page_fault")]
    found = signature("panic", "x", [handler, [Function("ext4_write")]], "stack")
    assert found.functions == ("handle_mm_fault",)


def test_recursion_counts_once() -> None:
    deep = [Function("walk") for _ in range(100)]
    assert signature("page-fault", None, [deep], "log").functions == ("walk",)


def test_the_depth_is_limited() -> None:
    found = signature("bug", None, [[Function(f"f{i}_") for i in range(100)]], "log")
    assert len(found.functions) == DEPTH


def test_the_hash_does_not_change() -> None:
    # Signatures are stored: if this fails, increment VERSION.
    found = signature("bug", None, [[Function("ext4_foo"), Function("bar")]], "log")
    assert str(found) == "bug:ext4_foo<-bar #" + found.hash
    assert found.hash == "92803750"


def test_the_module_is_not_hashed() -> None:
    built_in = signature("bug", None, [[Function("ext4_foo")]], "log")
    module = signature("bug", None, [[Function("ext4_foo", "ext4")]], "log")
    assert built_in.hash == module.hash
