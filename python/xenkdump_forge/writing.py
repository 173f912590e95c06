"""Writes the files of a synthetic dump: all of them, or none."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from . import boot, containers, plan
from .containers import whole
from .errors import SyntheticDumpError, WriteError
from .kinds import KINDS
from .parts import Parts

MIB = 1 << 20

_BUILDERS: dict[str, tuple[str, int]] = {
    "2006": ("i386_2006.session", 227174 * 4096),
    "2006-pae": ("i386_2006.pae", 512 * MIB),
    "2006-x86_64": ("x86_64_2006.build", 512 * MIB),
    "shadow": ("i386_2006.shadow", 384 * MIB),
    "xen3": ("i386_2006.xen3", 512 * MIB),
    "32on64": ("pv32_on_64.build", 384 * MIB),
    "modern": ("modern.build", 256 * MIB),
    "modern-hypercall-page": ("modern.build_with_hypercall_page", 256 * MIB),
}

#: The folder of the images.
IMAGES = "images"

_FILES = ("vmlinux", "vmcore", "plan.json")


@dataclass(frozen=True)
class SyntheticDump:
    """The files of a synthetic dump, and the plan that describes it."""

    directory: Path
    vmlinux: Path
    vmcore: Path
    plan: dict[str, Any]


def write_dump(
    directory: str | PathLike[str],
    like: str = "modern",
    *,
    memory: int | None = None,
    seed: int = 0,
    format: str = "elf",  # noqa: A002 - as in xenkdump_fast.open()
    compress: str | None = None,
    images: bool = False,
    crash: str | None = None,
    kernel_build: int = 0,
    extra: Callable[[Parts], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SyntheticDump:
    """Writes ``vmlinux``, ``vmcore`` and ``plan.json`` of a kind into ``directory``.

    ``memory`` is dom0's, in bytes; the file is sparse. ``format`` is one of ``FORMATS``,
    ``compress`` of ``COMPRESSIONS``: the dump is then compressed as a whole. With ``images``, the
    folder ``images`` has the kernel in all forms of ``boot.forms``. ``crash``, for the kind
    ``modern``, is one of ``kernels.v6_1.crashes``, in the build ``kernel_build`` of the kernel. The
    same ``seed`` gives the same bytes. ``extra`` may change the parts before they are written.
    ``progress`` is called with the numbers of pages written so far, and of all. Raises
    SyntheticDumpError, or its subclass WriteError.
    """
    parts = build(like, memory=memory, seed=seed, crash=crash, kernel_build=kernel_build)
    if progress is not None:
        parts.core.progress = progress
    if extra is not None:
        extra(parts)
    target = Path(directory)
    try:
        target.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".xenkdump-", dir=target))
        try:
            (work / "vmlinux").write_bytes(parts.vmlinux)
            if format == "elf":
                parts.core.write(work / "vmcore")
            else:
                containers.write(parts.core, work / "vmcore", format, parts.kernels)
            if compress is not None:
                for path in sorted(work.glob("vmcore*")):
                    whole.compress(path, compress)
            more = dict(parts.more)
            if images:
                more |= {f"{IMAGES}/{n}": d for n, d in boot.forms(parts.kernels[0].image).items()}
                (target / IMAGES).mkdir(exist_ok=True)
                (work / IMAGES).mkdir()
            for name, data in more.items():
                (work / name).write_bytes(data)
            parts.plan["notes"] = plan.notes(note for group in parts.core.notes for note in group)
            parts.plan["segments"] = [
                [hex(s.paddr), hex(s.filesz), hex(s.memsz), hex(s.offset)]
                for s in parts.core.segments[:1000]
            ]
            (work / "plan.json").write_text(json.dumps(parts.plan, indent=1) + "\n")
            for path in sorted(path for path in work.rglob("*") if path.is_file()):
                path.replace(target / path.relative_to(work))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise WriteError(
            f"cannot write a synthetic dump into {target}: {error.strerror}"
        ) from error
    return SyntheticDump(target, target / "vmlinux", target / "vmcore", parts.plan)


def build(
    like: str,
    *,
    memory: int | None = None,
    seed: int = 0,
    crash: str | None = None,
    kernel_build: int = 0,
) -> Parts:
    """The parts of a synthetic dump, not yet written. Raises SyntheticDumpError."""
    if like not in _BUILDERS:
        raise SyntheticDumpError(f"unknown kind of dump {like!r}; the kinds are {', '.join(KINDS)}")
    builder, default = _BUILDERS[like]
    parts: Parts
    module, _, function = builder.partition(".")
    size = default if memory is None else memory
    if size < 64 * MIB:
        raise SyntheticDumpError(f"{like}: needs at least 64 MiB of memory, not {size} bytes")
    if crash is not None:
        if like != "modern":
            raise SyntheticDumpError(f"{like}: crashes are only available for modern")
        from .hosts import modern

        parts = modern.build_crash(size, seed, crash, kernel_build)
        parts.plan = {"kind": like, "crash": crash, "seed": seed, "memory": size, **parts.plan}
        return parts
    parts = getattr(import_module(f".hosts.{module}", __package__), function)(size, seed)
    parts.plan = {"kind": like, "seed": seed, "memory": size, **parts.plan}
    return parts
