"""Writes what ``xl save`` writes since Xen 4.6: streams of libxl and of libxc.

Layouts: ``docs/specs/libxc-migration-stream.pandoc`` and ``libxl-migration-stream.pandoc`` of Xen.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..memory.machine import PAGE
from .saved_domain import XTAB, SavedDomain

XL_MAGIC = b"Xen saved domain, xl format\n \0 \r"
END, PAGE_DATA, PV_INFO, P2M_FRAMES, VCPU_BASIC, SHARED_INFO = 0, 1, 2, 3, 4, 7
TSC_INFO, HVM_CONTEXT, HVM_PARAMS, VERIFY, CHECKPOINT, STATIC_DATA_END = 8, 9, 10, 13, 14, 16
LIBXC_CONTEXT, XENSTORE_DATA, EMULATOR_CONTEXT, CHECKPOINT_END = 1, 2, 3, 4
NAME, UUID = "aiko", "7a0a2b1c-6f2e-4a51-9d53-0123456789ab"


@dataclass(frozen=True)
class Options:
    """How a domain is saved."""

    version: int = 3
    hvm: bool = False
    #: Pages are sent once before the domain stops; those that are written to later, again.
    live: bool = True
    #: The number of checkpoints (Remus); 0 is an ordinary save.
    checkpoints: int = 0
    #: Pages of a record; libxc's limit is 1024.
    batch: int = 1024
    #: The headers before the stream of libxc: libxl's, and xl's before that.
    libxl: bool = True
    xl: bool = True


def record(kind: int, body: bytes = b"") -> bytes:
    """A record, padded to 8 bytes."""
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def write(domain: SavedDomain, file: io.BufferedIOBase, options: Options = Options()) -> None:
    """Writes a saved domain."""
    for part in parts(domain, options):
        file.write(part)


def parts(domain: SavedDomain, options: Options) -> Iterator[bytes]:
    """The headers and records of a file, in order."""
    if options.xl:
        yield xl_header("hvm" if options.hvm else "pv")
    if options.libxl:
        yield struct.pack(">8sII", b"LibxlFmt", 2, 0)
        yield record(LIBXC_CONTEXT)
    yield libxc_headers(options.version, 2 if options.hvm else 1)
    if not options.hvm:
        yield record(PV_INFO, struct.pack("<BBHI", domain.word, domain.levels, 0, 0))
    if options.version >= 3:
        yield record(STATIC_DATA_END)
    if not options.hvm:
        frames = domain.p2m_frames
        body = struct.pack("<II", 0, len(domain.frames) - 1)
        yield record(P2M_FRAMES, body + struct.pack(f"<{len(frames)}Q", *frames))
    if options.live:
        yield from _live_pass(domain, options)
    for number in range(options.checkpoints):
        yield from _pages(domain, stale(domain, number), options)
        yield from _state(domain, options)
        yield record(CHECKPOINT)
        if options.libxl:
            yield _emulator(XENSTORE_DATA, b"physmap/0\0" + b"0\0")
            yield record(CHECKPOINT_END)
    yield from _pages(domain, ((pfn, None) for pfn in range(len(domain.frames))), options)
    yield from _state(domain, options)
    yield record(END)
    if options.libxl:
        if options.hvm:
            yield _emulator(XENSTORE_DATA, b"physmap/0\0" + b"0\0")
            yield _emulator(EMULATOR_CONTEXT, b"QEVM" + bytes(33))
        yield record(END)


def xl_header(kind: str) -> bytes:
    """xl's header with the configuration as JSON."""
    config = {"c_info": {"type": kind, "name": NAME, "uuid": UUID}, "b_info": {"max_vcpus": 2}}
    text = json.dumps(config).encode() + b"\0"
    data = struct.pack("<I", len(text)) + text
    return XL_MAGIC + struct.pack("<IIII", 0x01020304, 3, 0, len(data)) + data


def libxc_headers(version: int, kind: int) -> bytes:
    """The image header and the domain header."""
    image = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, version, 0, 0, 0)
    return image + struct.pack("<IHHII", kind, 12, 0, 4, 17)


def page_data(entries: Iterable[tuple[int, int, bytes]]) -> bytes:
    """A record of pages: pfn, type and contents of each, which are empty where it has none."""
    listed = list(entries)
    words = [kind << 60 | pfn for pfn, kind, _ in listed]
    body = struct.pack(f"<II{len(words)}Q", len(words), 0, *words)
    return record(PAGE_DATA, body + b"".join(data for *_, data in listed))


def _pages(
    domain: SavedDomain, pages: Iterable[tuple[int, bytes | None]], options: Options
) -> Iterator[bytes]:
    """Records of pages with these contents, or with their own."""
    batch: list[tuple[int, int, bytes]] = []
    for pfn, data in pages:
        kind = domain.kind(pfn)
        if options.hvm and kind != XTAB:
            kind = 0
        elif options.hvm:
            continue
        if kind != XTAB:
            batch.append((pfn, kind, domain.page(pfn) if data is None else data))
        else:
            batch.append((pfn, kind, b""))
        if len(batch) == options.batch:
            yield page_data(batch)
            batch.clear()
    if batch:
        yield page_data(batch)


def stale(domain: SavedDomain, number: int) -> Iterator[tuple[int, bytes]]:
    """Earlier contents of some pages."""
    old = struct.pack("<II", 0xDEAD0000 + number, 0x5A5A5A5A) * (PAGE // 8)
    for pfn in range(number, len(domain.frames), 89):
        if domain.frames[pfn] is not None:
            yield pfn, old


def _live_pass(domain: SavedDomain, options: Options) -> Iterator[bytes]:
    """Earlier contents of some pages, and page tables that changed while they were read."""
    yield from _pages(domain, stale(domain, 7), options)
    deferred = sorted(domain.tables)[:5]
    yield page_data((pfn, XTAB, b"") for pfn in deferred)
    # A page that the guest gave back afterwards.
    gone = next((pfn for pfn, mfn in enumerate(domain.frames) if mfn is None), None)
    if gone is not None and not options.hvm:
        yield page_data([(gone, 0, b"\x77" * PAGE)])


def _state(domain: SavedDomain, options: Options) -> Iterator[bytes]:
    """What is not memory."""
    yield record(TSC_INFO, struct.pack("<IIQII", 0, 2445000, 341 * 10**9, 1, 0))
    if options.hvm:
        yield record(HVM_PARAMS, struct.pack("<IIQQ", 1, 0, 1, 0xFEFFC))
        yield record(HVM_CONTEXT, domain.hvm_context())
        return
    yield record(SHARED_INFO, domain.shared_info)
    for vcpu in domain.vcpus:
        yield record(VCPU_BASIC, struct.pack("<II", vcpu.number, 0) + domain.context(vcpu))


def _emulator(kind: int, data: bytes) -> bytes:
    """A record of an emulator (QEMU upstream)."""
    return record(kind, struct.pack("<II", 2, 0) + data)
