"""A vmlinux of the same build as a kernel, in the places where distributions install it.

Only files of this machine are looked at, and only one with the same build id is used; for a file
without one, that with the checksum in its section ``.gnu_debuglink``.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from .._native import AbsentError, DumpError, Image, SourceLines
from .._typing import NamedTuple, TypeGuard
from ..limits import MAX_DEBUG_FILE, MAX_DEBUG_LINK
from ..regular_files import open_regular

#: Folders to look in first, separated by colons.
_VARIABLE = "XKDUMP_DEBUG_PATH"
#: A build id is a hash of 8 to 64 bytes; 20 in a distribution's kernel.
_LENGTHS = range(16, 129)


def find(
    build_id: str | None, release: str | None, warn: Callable[[str], None] = lambda _: None
) -> Image | None:
    """The vmlinux with this build id; None if there is none, or if the build id is not known.

    A warning if there is none, but a file of another build has the name for this build id.
    """
    if not _is_id(build_id):
        return None
    misfits: list[str] = []
    for path in _places(build_id, release):
        try:
            image = Image(path)
        except (OSError, DumpError):
            continue
        if image.build_id == build_id:
            return image
        if _is_by_id(path, build_id):
            misfits.append(f"{path} is not used: {_other_build(image, build_id)}")
    if misfits:
        warn(misfits[0])
    return None


def _other_build(found: Image, build_id: str) -> str:
    if found.build_id is None:
        return f"it has no build id, in place of {build_id}"
    return f"its build id is {found.build_id}, not {build_id}"


def paths(build_id: str, release: str | None) -> Iterator[str]:
    """Paths where the file with this build id may be; most of them do not exist."""
    if _is_id(build_id):
        yield from _places(build_id, release)


class _Link(NamedTuple):
    """What ``.gnu_debuglink`` says: a name of a file, and its CRC-32."""

    name: str
    crc: int


#: The release in the name of an installed file.
_NAMED = r"(?:vmlinu[xz]|bzImage|System\.map)-(.+?)(?:\.(?:gz|xz|zst|bz2|debug))?"
#: Suffixes of a vmlinux that a distribution compresses.
_PACKED = ("gz", "xz", "zst")
_CHUNK = 1 << 20


def complete(image: Image, warn: Callable[[str], None] = lambda _: None) -> None:
    """Gives an image its debug file, if there is one on this machine.

    A warning if there is none, but a file of another build has its name.
    """
    misfits: list[str] = []
    debug = next(_debug_files(image, misfits=misfits), None)
    if debug is not None:
        image.set_debug(debug)
    elif misfits:
        warn(f"{image.path}: its debug file {misfits[0]}")


def source_lines(image: Image, slide: int, release: str | None) -> SourceLines:
    """The source lines of a kernel of this release, which KASLR moved by ``slide`` bytes.

    They come from its image, else from a debug file on this machine. AbsentError if there are none.
    """
    try:
        return image.source_lines(slide)
    except AbsentError:
        # A vmlinux of this build would be the image.
        if not image.is_memory:
            for debug in _debug_files(image, release):
                with suppress(AbsentError):
                    return debug.source_lines(slide)
        raise


def _debug_files(
    image: Image, release: str | None = None, misfits: list[str] | None = None
) -> Iterator[Image]:
    """The debug files of an image on this machine: of the same build, with a symbol table.

    The release is that of the image's name, if that has one. Files that have the name of its debug
    file and are of another build are added to ``misfits``.
    """
    link = _link(image)
    for path, by_link in _debug_places(image, link, release_of(image.path) or release):
        try:
            if os.path.samefile(path, image.path):
                continue
            debug = Image(path)
        except (OSError, DumpError):
            continue
        if debug.symbol_source != "symtab" or debug.machine_type != image.machine_type:
            continue
        if image.build_id is not None and debug.build_id is not None:
            belongs = image.build_id == debug.build_id
            problem = _other_build(debug, image.build_id)
        else:
            belongs = by_link and link is not None and _crc(path) == link.crc
            problem = "its checksum is not that in .gnu_debuglink"
        if belongs:
            yield debug
        elif misfits is not None and (by_link or _is_by_id(path, image.build_id)):
            misfits.append(f"{path} is not used: {problem}")


def release_of(path: str) -> str | None:
    """The release that the name of an image says: ``/boot/vmlinuz-6.1.0-56-amd64``."""
    folder, name = os.path.split(path)
    match = re.fullmatch(_NAMED, name)
    if match is not None:
        return match[1]
    parent, release = os.path.split(folder)
    return release if os.path.basename(parent) == "modules" else None


def _link(image: Image) -> _Link | None:
    try:
        data = image.section(".gnu_debuglink")
    except AbsentError:
        return None
    raw, end, _ = data[:MAX_DEBUG_LINK].partition(b"\0")
    at = len(raw) + 4 & ~3
    name = os.fsdecode(raw)
    if not end or len(data) < at + 4 or not name or os.sep in name or name in (".", ".."):
        return None
    return _Link(name, int.from_bytes(data[at : at + 4], "little"))


def _debug_places(
    image: Image, link: _Link | None, release: str | None
) -> Iterator[tuple[str, bool]]:
    """Candidate paths of an image's debug file; whether each comes from its debug link."""
    if link is not None:
        folder = os.path.dirname(os.path.realpath(image.path))
        yield os.path.join(folder, link.name), True
        yield os.path.join(folder, ".debug", link.name), True
        for base in (*folders(), "/usr/lib/debug"):
            yield os.path.join(base, folder.lstrip(os.sep), link.name), True
            yield os.path.join(base, link.name), True
    if _is_id(image.build_id):
        for path in _places(image.build_id, release):
            yield path, False


def _crc(path: str) -> int | None:
    """The CRC-32 of a file; None if it cannot be read, or if it is too large."""
    import zlib

    crc = 0
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_DEBUG_FILE:
                return None
            while chunk := file.read(_CHUNK):
                crc = zlib.crc32(chunk, crc)
    except OSError:
        return None
    return crc


def _is_id(build_id: str | None) -> TypeGuard[str]:
    return build_id is not None and len(build_id) in _LENGTHS and build_id.isalnum()


def folders() -> Iterator[str]:
    """The folders that the user wants to be looked in."""
    return filter(None, os.environ.get(_VARIABLE, "").split(os.pathsep))


def _by_id(build_id: str) -> str:
    return os.path.join(".build-id", build_id[:2], f"{build_id[2:]}.debug")


def _is_by_id(path: str, build_id: str | None) -> bool:
    """Whether a path is that of the file with a build id."""
    return build_id is not None and path.endswith(os.sep + _by_id(build_id))


def _places(build_id: str, release: str | None) -> Iterator[str]:
    """Paths where it may be, the most specific first."""
    by_id = _by_id(build_id)
    named = release if release and os.sep not in release and release not in (".", "..") else None
    for folder in folders():
        yield os.path.join(folder, by_id)
        if named is not None:
            yield os.path.join(folder, f"vmlinux-{named}")
            yield os.path.join(folder, named, "vmlinux")
        yield os.path.join(folder, "vmlinux")
    yield os.path.join("/usr/lib/debug", by_id)
    if named is not None:
        yield f"/usr/lib/debug/boot/vmlinux-{named}"  # Debian
        yield f"/usr/lib/debug/boot/vmlinux-{named}.debug"  # SUSE
        yield f"/usr/lib/debug/lib/modules/{named}/vmlinux"  # Fedora, RHEL
        yield f"/usr/lib/debug/usr/lib/modules/{named}/vmlinux"
        yield f"/boot/vmlinux-{named}"
        yield from (f"/boot/vmlinux-{named}.{suffix}" for suffix in _PACKED)  # SUSE
        yield f"/lib/modules/{named}/build/vmlinux"
        yield f"/lib/modules/{named}/vmlinux"
    yield os.path.join(_debuginfod_cache(), build_id, "debuginfo")


def _debuginfod_cache() -> str:
    """The folder in which debuginfod's clients keep what they downloaded."""
    folder = os.environ.get("DEBUGINFOD_CACHE_PATH")
    if folder:
        return folder
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "debuginfod_client")
