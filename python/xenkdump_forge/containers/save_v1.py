"""Writes what ``xm save`` wrote, and xl up to Xen 4.5: libxc's stream before version 2.

Layout: ``tools/libxc/xg_save_restore.h`` of Xen 4.4.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..memory.machine import PAGE
from .save import NAME, UUID, XL_MAGIC, stale
from .saved_domain import XTAB, SavedDomain

VERIFY, VCPU_INFO, IDENT_PT, TSC_INFO, LAST_CHECKPOINT, TOOLSTACK = -1, -2, -3, -7, -9, -18
MAX_BATCH = 1024


@dataclass(frozen=True)
class Options:
    """How a domain is saved."""

    hvm: bool = False
    #: Word size of the tools.
    word: int = 8
    #: The header is xend's, or xl's.
    xend: bool = True
    live: bool = True
    #: Blocks of extended information besides the guest's registers, and chunks of newer versions.
    extended: bool = True
    #: Checkpoints of Remus before the last one.
    checkpoints: int = 0


def write(domain: SavedDomain, file: io.BufferedIOBase, options: Options = Options()) -> None:
    """Writes a saved domain."""
    for part in parts(domain, options):
        file.write(part)


def parts(domain: SavedDomain, options: Options) -> Iterator[bytes]:
    """The headers and chunks of a file, in order."""
    yield xend_header(options.hvm) if options.xend else xl_header()
    code = "Q" if options.word == 8 else "I"
    yield struct.pack(f"<{code}", len(domain.frames))
    if not options.hvm:
        yield _extended_info(domain, options)
        per_frame = PAGE // domain.word
        count = -(-len(domain.frames) // per_frame)
        frames = list(domain.p2m_frames[:count]) + [0] * (count - len(domain.p2m_frames))
        yield struct.pack(f"<{count}{code}", *frames)
    if options.live:
        yield from _batches(domain, stale(domain, 7), options)
        # Of pages that could not be mapped, only the type was written.
        first = next(pfn for pfn, mfn in enumerate(domain.frames) if mfn is not None)
        kind = 0 if options.hvm else domain.kind(first)
        words = [XTAB << 28, kind << 28 | first, XTAB << 28]
        yield struct.pack(f"<i3{code}", 3, *words) + domain.page(first)
    for number in range(options.checkpoints):
        yield from _batches(domain, stale(domain, number), options)
        yield from _chunks(domain, options)
        yield struct.pack("<i", 0)
        yield from _tail(domain, options)
    everything = ((pfn, None) for pfn in range(len(domain.frames)))
    yield from _batches(domain, everything, options)
    yield from _chunks(domain, options)
    if options.extended:
        yield struct.pack("<i", LAST_CHECKPOINT)
    yield struct.pack("<i", 0)
    yield from _tail(domain, options)
    if options.hvm:
        yield b"DeviceModelRecord0002" + struct.pack("<I", 5) + b"QEVM\0"


def xend_header(hvm: bool) -> bytes:
    """xend's header, with the configuration as an s-expression."""
    image = "hvm" if hvm else "linux"
    config = f"(domain (uuid {UUID}) (name {NAME}) (image ({image})))".encode()
    return b"LinuxGuestRecord" + struct.pack(">i", len(config)) + config


def xl_header() -> bytes:
    """xl's header, with the file that the domain was created from."""
    config = f'name="{NAME}"\nmemory=128\n'.encode()
    data = struct.pack("<I", len(config)) + config
    return XL_MAGIC + struct.pack("<IIII", 0x01020304, 0, 0, len(data)) + data


def _extended_info(domain: SavedDomain, options: Options) -> bytes:
    context = domain.context(domain.vcpus[0])
    blocks = b"vcpu" + struct.pack("<I", len(context)) + context
    if options.extended:
        blocks += b"extv" + struct.pack("<I", 0)
        blocks += b"xcnt" + struct.pack("<II", 4, 16 + 832)
    return b"\xff" * options.word + struct.pack("<I", len(blocks)) + blocks


def _batches(
    domain: SavedDomain, pages: Iterable[tuple[int, bytes | None]], options: Options
) -> Iterator[bytes]:
    batch: list[tuple[int, bytes]] = []
    for pfn, data in pages:
        if domain.frames[pfn] is None:
            continue
        kind = 0 if options.hvm else domain.kind(pfn)
        batch.append((kind << 28 | pfn, domain.page(pfn) if data is None else data))
        if len(batch) == MAX_BATCH:
            yield _batch(batch, options)
            batch.clear()
    if batch:
        yield _batch(batch, options)


def _batch(pages: list[tuple[int, bytes]], options: Options) -> bytes:
    code = "Q" if options.word == 8 else "I"
    head = struct.pack(f"<i{len(pages)}{code}", len(pages), *(word for word, _ in pages))
    return head + b"".join(data for _, data in pages)


def _chunks(domain: SavedDomain, options: Options) -> Iterator[bytes]:
    numbers = [vcpu.number for vcpu in domain.vcpus]
    yield struct.pack("<iiQ", VCPU_INFO, max(numbers), sum(1 << number for number in numbers))
    if options.hvm:
        yield struct.pack("<iIQ", IDENT_PT, 0, 0xFEFFC)
    if options.extended:
        yield struct.pack("<iIQII", TSC_INFO, 0, 341 * 10**9, 2445000, 1)
        yield struct.pack("<iI", TOOLSTACK, 5) + b"state"


def _tail(domain: SavedDomain, options: Options) -> Iterator[bytes]:
    if options.hvm:
        context = domain.hvm_context()
        yield struct.pack("<QQQI", 1, 2, 3, len(context)) + context
        return
    code = "Q" if options.word == 8 else "I"
    gone = [pfn for pfn, mfn in enumerate(domain.frames) if mfn is None]
    yield struct.pack(f"<I{len(gone)}{code}", len(gone), *gone)
    for vcpu in domain.vcpus:
        yield domain.context(vcpu)
        if options.extended:
            yield bytes(128) + struct.pack("<QQ", 7, 832) + bytes(832)
    yield domain.shared_info
