"""Opens a domain's P2M from each kind of source; session/platform.py puts the sources in order."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from .. import qemu_notes
from .._contexts import suppress
from .._native import P2M, AbsentError, AddressSpace, Dump, Image
from .._typing import NamedTuple
from ..limits import MAX_CR3_SOURCES, MAX_CRASH_INFO_NOTES, MAX_PFNS, MAX_ROOTS
from ..linux import compat
from ..linux.boot.image import PAGE, first_symbol, link_base
from ..linux.boot.roots import Root, Roots, in_kernel_and_user_space

#: Names of the sources, as ``--p2m-source`` takes them.
NAMES = ("list", "linear", "cr3")


class Source(NamedTuple):
    """A source of a P2M."""

    #: "list", "linear", "cr3" or "dump-core".
    name: str
    #: Where it was found, in words.
    detail: str
    #: Opens the P2M; AbsentError if it cannot be read.
    open: Callable[[], P2M]
    #: Whether it is known to be the domain's own.
    verified: bool = True


def check_name(name: str) -> None:
    """ValueError if no source is called ``name``."""
    if name not in NAMES:
        raise ValueError(f"no P2M source {name!r}; available: {', '.join(NAMES)}")


def roots(dump: Dump) -> list[Root]:
    """The page-table roots in the notes, those of the 2006 CR3 notes first.

    A CR3 note of a CPU that did not run dom0 may be 0; the cr3 of CRASH_REGS is that of the vCPU
    that ran on the pCPU. The caller has to find out to which domain they belong.
    """
    found: dict[int, Root] = {}
    for kind in ("xen_kdump_cr3", "crash_regs"):
        notes = (note for note in dump.notes if note.kind == kind)
        for i, note in enumerate(islice(notes, MAX_ROOTS)):
            fields = note.fields
            address = fields["mfn"] << 12 if kind == "xen_kdump_cr3" else fields["cr3"] & ~0xFFF
            if address:
                found.setdefault(address, Root(address, f"cr3 of {note.type_name} {i}"))
    for i, cpu in enumerate(islice(qemu_notes.cpus(dump.notes), MAX_ROOTS)):
        if cpu.root:
            for root in in_kernel_and_user_space(cpu.root, f"cr3 of QEMUCPUState {i}"):
                found.setdefault(root.address, root)
    return list(found.values())


def dom0_roots(dump: Dump) -> Iterator[Root]:
    """The roots in the 2006 CR3 notes: Xen wrote them for dom0 only."""
    notes = (note for note in dump.notes if note.kind == "xen_kdump_cr3")
    for i, note in enumerate(islice(notes, MAX_ROOTS)):
        if note.fields["mfn"]:
            yield Root(note.fields["mfn"] << 12, f"cr3 of {note.type_name} {i}")


def by_cr3(
    dump: Dump, image: Image, roots: Roots, own: Iterable[Root] | None = None
) -> Iterator[Source]:
    """The kernel's own pointers to its P2M, under each root. The dumps of 2006 have only these.

    A root of the notes may be any domain's, and domains may run the same kernel. It is the domain's
    if its page tables map linux_banner to the frame that one of ``own`` maps it to, or that dom0's
    frame list has for it. If neither is available, none is verified. If ``own`` is None, all are.
    """
    banner = image.symbols().get("linux_banner")
    if banner is None:
        return
    by_frame = roots.banners(banner).by_frame
    frames = set(by_frame)
    if own is not None:
        frames = set(Roots(dump, image, own).banners(banner).by_frame)
        frames = frames or set(_listed_frames(dump, image, banner)) & set(by_frame)
    # Those of the domain first.
    ordered = sorted(by_frame, key=lambda frame: frame not in frames)
    found = ((frame, *entry) for frame in ordered for entry in by_frame[frame])
    for frame, root, paging in islice(found, MAX_CR3_SOURCES):
        if frames and frame not in frames:
            open_ = partial(_refuse, root, frame, frames)
        else:
            open_ = partial(from_kernel, dump, image, dump.virtual(root.address, paging))
        yield Source("cr3", f"{root.how}, {paging}", open_, bool(frames))


def _refuse(root: Root, frame: int, own: Iterable[int]) -> P2M:
    """Raises AbsentError: the root is another domain's."""
    frames = " or ".join(f"{mfn:#x}" for mfn in sorted(own))
    raise AbsentError(
        f"{root.how} {root.address:#x} is another domain's: its linux_banner is in mfn {frame:#x}, "
        f"this domain's in {frames}"
    )


def _listed_frames(dump: Dump, image: Image, banner: int) -> Iterator[int]:
    """The frames of linux_banner according to dom0's frame list."""
    physical = banner - link_base(image, image.symbols())
    for source in by_frame_list(dump, image):
        with suppress(AbsentError):
            mfn = source.open().entry(physical // PAGE)[1]
            if mfn is not None:
                yield mfn


def from_kernel(dump: Dump, image: Image, virtual: AddressSpace) -> P2M:
    """The P2M that the kernel's own variables lead to, in the form that its version has.

    ``phys_to_machine_mapping`` until 2.6.18-xen and its ports; ``p2m_top`` in pvops kernels 2.6.27
    to 3.18, with two levels before 2.6.37 and three after; ``xen_p2m_addr`` since 3.19
    (054954eb051f).
    """
    symbols, word = image.symbols(), image.word
    max_pfn_at = first_symbol(symbols, "max_pfn")
    if max_pfn_at is None:
        raise AbsentError(f"{image.path}: no symbol {' or '.join(compat.SYMBOLS['max_pfn'])}")
    pages = min(virtual.word(max_pfn_at, word), MAX_PFNS)
    for name, size_name in (("xen_p2m_addr", "xen_p2m_size"), ("phys_to_machine_mapping", "")):
        variable = symbols.get(name)
        if variable is None:
            continue
        table = virtual.word(variable, word)
        size_at = symbols.get(size_name)
        if size_at is not None:
            pages = min(pages, virtual.word(size_at, word))
        return P2M.linear(dump, virtual, table, word, pages, "cr3")
    top = symbols.get("p2m_top")
    if top is None:
        raise AbsentError(
            f"{image.path}: no symbol xen_p2m_addr, phys_to_machine_mapping or p2m_top"
        )
    if "p2m_mid_missing" in symbols:
        # A pointer to the top page.
        return P2M.pvops_tree(dump, virtual, virtual.word(top, word), 3, word, pages)
    return P2M.pvops_tree(dump, virtual, top, 2, word, pages)


def by_frame_list(dump: Dump, image: Image) -> Iterator[Source]:
    """dom0's frame-list tree, by the crash note: 0 if dom0 had not set it up, ~0 if it has none."""
    infos = (note for note in dump.notes if note.kind == "crash_info")
    for note in islice(infos, MAX_CRASH_INFO_NOTES):
        fields = note.fields
        mfn = fields.get("dom0_pfn_to_mfn_frame_list_list")
        unusable = (1 << (fields["word"] * 8)) - 1
        if mfn and mfn not in (unusable, 0xFFFF_FFFF):
            yield Source(
                "list",
                f"frame_list_list mfn {mfn:#x} of CRASH_INFO",
                lambda mfn=mfn: P2M.frame_list(dump, mfn, image.word),  # type: ignore[misc]
            )
