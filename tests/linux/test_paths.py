"""Paths that are not complete."""

from typing import Any

import pytest

from xenkdump_fast.linux import paths
from xenkdump_fast.linux.kernel import Kernel

from .objects import NOWHERE, Objects

LAYOUTS = """
vfsmount: mnt_root
mount: mnt_parent mnt_mountpoint mnt:8
dentry: d_parent d_name.name d_name.len:4
"""


class Tree:
    """``/home`` in a mount, and what is in it."""

    def __init__(self) -> None:
        self.objects = Objects(LAYOUTS)
        self.root = self.dentry("/")
        self.objects.set(self.root, "dentry", d_parent=self.root)
        self.home = self.dentry("home", self.root)
        mount = self.objects.make("mount", mnt_mountpoint=self.root)
        self.objects.set(mount, "mount", mnt_parent=mount)
        self.mount = mount + self.kernel.offset("mount.mnt")
        self.objects.set(self.mount, "vfsmount", mnt_root=self.root)

    @property
    def kernel(self) -> Kernel:
        return self.objects.kernel

    def dentry(self, name: str, parent: int = 0) -> int:
        made: dict[str, Any] = {"d_name__name": name, "d_name__len": len(name)}
        return self.objects.make("dentry", d_parent=parent, **made)

    def text(self, dentry: int, mount: int | None = None) -> str:
        (text,) = paths.Paths(self.kernel).texts([mount or self.mount], [dentry])
        return text

    def warning(self) -> str:
        (warning,) = self.kernel.warnings
        return warning.removeprefix("a path is not complete: ")


def test_complete() -> None:
    tree = Tree()
    assert tree.text(tree.home) == "/home"
    assert tree.text(tree.dentry("x", tree.home)) == "/home/x"
    assert paths.Paths(tree.kernel).texts([None], [tree.home]) == ["home"]
    assert tree.kernel.warnings == []


def test_what_cannot_be_read_is_named_once() -> None:
    tree = Tree()
    below = [tree.dentry(name, NOWHERE) for name in ("a", "b")]
    found = paths.Paths(tree.kernel).texts([tree.mount] * 2, below)
    assert found == ["/?/a", "/?/b"]
    assert tree.warning().startswith(f"the dentry at {NOWHERE:#x} cannot be read: ")


def test_a_name() -> None:
    tree = Tree()
    tree.objects.set(tree.home, "dentry", d_name__name=NOWHERE)
    assert tree.text(tree.home) == "/?"
    assert tree.warning().startswith(f"the name of a dentry at {NOWHERE:#x} cannot be read: ")


def test_a_name_that_is_too_long() -> None:
    """It is not cut, but ``?`` with a warning."""
    tree = Tree()
    tree.objects.set(tree.home, "dentry", d_name__len=256)
    assert tree.text(tree.home) == "/?"
    assert tree.warning().endswith("cannot be read: the dentry is damaged")


def test_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounts in a loop take the whole depth for each file."""
    tree = Tree()
    used: list[int] = []

    class Memory:
        def paths(self, nodes: list[int], *others: Any) -> Any:
            used.append(others[-1][3])
            return ["/?"] * len(nodes), [("steps", 0)], 0, 0, min(512, used[-1])

    monkeypatch.setattr(paths, "MAX_PATH_STEPS", 600)
    monkeypatch.setattr(tree.kernel, "virtual", Memory())
    found = paths.Paths(tree.kernel)
    for _ in range(3):
        assert found.texts([tree.mount], [tree.home]) == ["/?"]
    assert used == [600, 88, 0]
    assert tree.warning() == "all paths together lead through more than 600 dentries and mounts"


def test_a_mount() -> None:
    tree = Tree()
    inside = tree.kernel.offset("mount.mnt")
    assert tree.text(tree.home, NOWHERE + inside) == "/?/home"
    assert tree.warning().startswith(f"the mount at {NOWHERE:#x} cannot be read: ")


def test_a_loop() -> None:
    tree = Tree()
    other = tree.dentry("other", tree.home)
    tree.objects.set(tree.home, "dentry", d_parent=other)
    assert tree.text(other).startswith("/?/home/other/home/")
    assert tree.warning() == "there are more than 512 dentries and mounts above each other"


def test_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_BATCH", 2)
    tree = Tree()
    names = [f"n{i}" for i in range(5)]
    dentries = [tree.dentry(name, tree.home) for name in names]
    found = paths.Paths(tree.kernel).texts([tree.mount] * 5, dentries)
    assert found == [f"/home/{name}" for name in names]
