"""What is to be written."""

from typing import Literal, NamedTuple, get_args

Format = Literal["elf", "kdump", "lime", "raw"]
Compression = Literal["zlib", "zstd", "none"]

#: The formats, with what they hold.
FORMATS: dict[Format, str] = {
    "elf": "a vmcore as /proc/vmcore",
    "kdump": "kdump-compressed, as makedumpfile writes it",
    "lime": "a LiME image, without registers",
    "raw": "plain memory, without registers and without ranges",
}
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)


class Request(NamedTuple):
    """The file to write."""

    path: str
    format: Format = "elf"
    #: Bits as makedumpfile's: 1 zeros, 2 caches, 4 caches with private data, 8 user, 16 free.
    level: int = 0
    #: Of the format kdump.
    compression: Compression = "zlib"
    #: Replaces an existing file.
    force: bool = False
