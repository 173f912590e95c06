"""The file formats of a synthetic dump."""

#: The formats, by name.
FORMATS: dict[str, str] = {
    "elf": "ELF vmcore",
    "kdump-raw": "kdump-compressed dump, its pages stored",
    "kdump-zlib": "the same, compressed by zlib (makedumpfile -c)",
    "kdump-lzo": "the same, by LZO (-l)",
    "kdump-snappy": "the same, by snappy (-p)",
    "kdump-zstd": "the same, by zstd (-z)",
    "kdump-split": "the same by zlib in three files (--split)",
    "flattened": "flattened ELF vmcore (makedumpfile -F -E)",
    "flattened-kdump": "flattened kdump-compressed dump (-F -c)",
    "lime": "LiME image, without notes",
    "xl-save": "xl save file of dom0, as of a PV domain",
    "xl-save-hvm": "the same as of an HVM guest",
    "xm-save": "xm save file of dom0 (up to Xen 4.5), as of a PV domain",
    "xm-save-hvm": "the same as of an HVM guest",
    "raw": "raw image of memory, without notes",
}

#: How the files can be compressed as a whole, by name.
COMPRESSIONS: dict[str, str] = {
    "gzip": "gzip",
    "bzip2": "bzip2",
    "xz": "xz",
    "zstd": "zstd, one frame",
    "zstd-seekable": "zstd, frames of 1 MiB with a seek table",
}
