"""Writes initial RAM disks: cpio archives in the format "newc" that Linux unpacks at boot."""

import gzip
import lzma
import re
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

#: Where the dynamic linker of the unpacked packages looks for libraries.
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "usr/lib64", "lib64")
_LOADER = "lib64/ld-linux-x86-64.so.2"


class Archive:
    """A cpio archive under construction."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, bytes]] = {}

    def add(self, name: str, data: bytes, mode: int = 0o755) -> None:
        """A file; its folders are added."""
        self._folders(name)
        self._entries[name] = (stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """A symbolic link."""
        self._folders(name)
        self._entries[name] = (stat.S_IFLNK | 0o777, target.encode())

    def folder(self, name: str) -> None:
        """An empty folder."""
        self._folders(f"{name}/")

    def program(self, root: Path, name: str, target: str | None = None) -> None:
        """A program of the packages in ``root``, with the shared libraries that it needs."""
        path = root / name
        self.add(target or f"bin/{path.name}", path.read_bytes())
        needed = _needed(path)
        if needed:
            self.add(_LOADER, _find(root, Path(_LOADER).name).read_bytes())
            # glibc loads it when a thread is cancelled.
            needed.append("libgcc_s.so.1")
        while needed:
            library = needed.pop()
            if f"lib/{library}" not in self._entries:
                found = _find(root, library)
                self.add(f"lib/{library}", found.read_bytes())
                needed += _needed(found)

    def modules(self, root: Path, names: Iterable[str]) -> None:
        """Kernel modules and what they depend on, and ``/modules``: their order of loading."""
        files: dict[str, Path] = {}
        for path in root.rglob("*.ko*"):
            files.setdefault(path.name.split(".")[0].replace("-", "_"), path)
        order: list[str] = []

        def visit(name: str) -> None:
            path = files.get(name.replace("-", "_"))
            if path is None or name in order:
                return
            data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
            depends = re.search(rb"\0depends=([^\0]*)\0", data)
            for needed in depends[1].decode().split(",") if depends else ():
                if needed:
                    visit(needed)
            order.append(name)
            self.add(f"modules/{name}.ko", data)

        for name in names:
            visit(name)
        self.add("modules/order", "".join(f"/modules/{name}.ko\n" for name in order).encode())

    def bytes(self, *, compressed: bool = True) -> bytes:
        """The archive."""
        out = bytearray()
        for number, (name, (mode, data)) in enumerate(self._entries.items(), 1):
            _append(out, number, name, mode, data)
        _append(out, 0, "TRAILER!!!", 0, b"")
        return gzip.compress(bytes(out), 1, mtime=0) if compressed else bytes(out)

    def _folders(self, name: str) -> None:
        parts = name.split("/")[:-1]
        for i in range(1, len(parts) + 1):
            self._entries.setdefault("/".join(parts[:i]), (stat.S_IFDIR | 0o755, b""))


def _append(out: bytearray, number: int, name: str, mode: int, data: bytes) -> None:
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    out += bytes(-len(out) % 4)
    out += data
    out += bytes(-len(out) % 4)


def _needed(path: Path) -> list[str]:
    found = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True)
    return re.findall(r"\(NEEDED\).*\[(.+)\]", found.stdout)


def _find(root: Path, library: str) -> Path:
    for folder in _LIBRARIES:
        path = root / folder / library
        if path.exists() or path.is_symlink():
            return path.resolve()
    return next(root.rglob(library)).resolve()
