"""The image of a kernel in the forms in which people have it.

``forms`` has all of them: compressed files, a ``vmlinuz`` with each compression, a stripped file
with its debug file, a ``System.map``.
"""

from __future__ import annotations

from ..kernels.image import Image
from . import bzimage
from .encoders import ENCODERS

#: Suffixes of compressed files, with their encoders.
_FILES = {
    "gz": "gzip",
    "bz2": "bzip2",
    "lzma": "lzma",
    "xz": "xz",
    "lzo": "lzo",
    "lz4": "lz4",
    "zst": "zstd",
}


def forms(image: Image) -> dict[str, bytes]:
    """The content of each file, by its name."""
    whole, stripped = image.vmlinux(), image.stripped()
    debug = image.debug_file()
    files = {f"vmlinux.{suffix}": ENCODERS[name](whole) for suffix, name in _FILES.items()}
    files |= {f"vmlinuz-{name}": bzimage.write(stripped, name) for name in ENCODERS}
    files["vmlinuz-old"] = bzimage.write(stripped, "gzip", version=0x0206)
    files["vmlinuz.efi"] = bzimage.unified(files["vmlinuz-xz"])
    files["vmlinux.stripped"] = image.stripped(("vmlinux.debug", debug))
    files["vmlinux.debug"] = debug
    files["System.map"] = image.system_map()
    return files
