"""A vmlinux of the same build as a kernel, in the places where distributions install it.

Only files of this machine are looked at, and only one with the same build id is used.
"""

import os
from collections.abc import Iterator

from .._native import DumpError, Image

#: Folders to look in first, separated by colons.
_VARIABLE = "XKDUMP_DEBUG_PATH"
#: A build id is a hash of 8 to 64 bytes; 20 in a distribution's kernel.
_LENGTHS = range(16, 129)


def find(build_id: str | None, release: str | None) -> Image | None:
    """The vmlinux with this build id; None if there is none, or if the build id is not known."""
    if build_id is None or len(build_id) not in _LENGTHS or not build_id.isalnum():
        return None
    for path in _places(build_id, release):
        try:
            image = Image(path)
        except (OSError, DumpError):
            continue
        if image.build_id == build_id:
            return image
    return None


def _places(build_id: str, release: str | None) -> Iterator[str]:
    """Paths where it may be, the most specific first."""
    by_id = os.path.join(".build-id", build_id[:2], f"{build_id[2:]}.debug")
    named = release if release and os.sep not in release and release not in (".", "..") else None
    for folder in os.environ.get(_VARIABLE, "").split(os.pathsep):
        if folder:
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
