"""``mount``: the mounted file systems."""

import argparse
from collections.abc import Iterator, Mapping, Sequence

from .._native import AbsentError
from .._typing import NamedTuple, NotRequired, TypedDict
from ..limits import MAX_DEVICES_READ
from ..linux import mounts, namespaces
from ..linux.files import File, open_files
from ..linux.mounts import Mount
from ..output.escape import visible
from ..output.json_types import Count, Hex, Stream
from ..output.table import columns
from ..parsing import number
from ..session import Domain
from . import addresses
from .contract import Operands
from .selection import for_each

OPERANDS = Operands(
    "ADDRESS|DEVICE|DIRECTORY",
    "only these: by the address of a mount, vfsmount, super block, dentry or inode, "
    "by the device, or by the directory",
)


class Options(NamedTuple):
    """Which mounts, and what of them."""

    operands: Sequence[str] = ()
    #: The task in whose mount namespace they are.
    namespace: str | None = None
    #: With the open files.
    files: bool = False
    #: With the dirty inodes.
    inodes: bool = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``mount``."""
    parser.add_argument(
        "-n",
        "--namespace",
        metavar="PID|TASK|COMM",
        help="the mount namespace of this task; the default is the initial one",
    )
    parser.add_argument(
        "-f", "--files", action="store_true", help="with the open files of each file system"
    )
    parser.add_argument(
        "-i", "--inodes", action="store_true", help="with the dirty inodes of each file system"
    )


def run(target: Domain, options: Options = Options()) -> "Mounts":
    """Reads the mounts of a namespace.

    AbsentError if the kernel's types are not known, or nothing is mounted as an operand says.
    """
    kernel = target.kernel
    if options.namespace is None:
        namespace = namespaces.initial(kernel, "mnt_ns")
    else:
        task = addresses.process(target, options.namespace)
        namespace = namespaces.of_task(kernel, task.address, "mnt_ns")
    with kernel.budget("structs of mounts", MAX_DEVICES_READ):
        found = mounts.mounts(kernel, namespace)
        chosen, failure = _chosen(target, found, options.operands)
        files = _files(target) if options.files else None
        blocks = [one.super_block for one in chosen]
        inodes = mounts.dirty_inodes(kernel, blocks) if options.inodes else None
    return Mounts(target.id, kernel.word, chosen, files, inodes, failure)


def _chosen(
    target: Domain, found: Sequence[Mount], operands: Sequence[str]
) -> tuple[Sequence[Mount], str | None]:
    if not operands:
        return found, None
    chosen: dict[int, Mount] = {}

    def add(text: str) -> None:
        named = [one for one in found if text in (one.device, one.path)]
        address = number(text, 16)
        if not named and address is not None and 0 <= address <= target.kernel.last:
            named = mounts.containing(target.kernel, found, address)
        if not named:
            raise AbsentError(f"{target.dump.path}: domain {target.id}: {text} is not mounted")
        chosen.update((one.address, one) for one in named)

    failure = for_each(operands, add)
    return list(chosen.values()), failure


def _files(target: Domain) -> dict[int, list[File]]:
    """The open files of each super block, each dentry once."""
    kernel = target.kernel
    processes = [one for one in kernel.tasks() if one.pid == one.tgid and not one.idle]
    files = {
        one.dentry: one
        for process in open_files(kernel, processes).values()
        for one in process.files
    }
    blocks = mounts.super_blocks(kernel, (one.inode for one in files.values()))
    found: dict[int, list[File]] = {}
    for one in files.values():
        found.setdefault(blocks.get(one.inode, 0), []).append(one)
    return found


class OpenJson(TypedDict):
    """An open file of a file system."""

    dentry: Hex
    inode: Hex
    type: str
    path: str


class MountJson(TypedDict):
    """A mount. ``files`` only with ``-f``, ``dirty_inodes`` only with ``-i``."""

    mount: Hex
    vfsmount: Hex
    super_block: Hex
    id: int
    type: str
    device: str
    path: str
    files: NotRequired[list[OpenJson]]
    dirty_inodes: NotRequired[list[Hex]]


class JSON(TypedDict):
    """What ``mount --json`` prints."""

    domain: Count
    mounts: Stream[MountJson]


class Mounts(NamedTuple):
    """The mounts of a namespace."""

    domain: int
    word: int
    mounts: Sequence[Mount]
    #: By super block; None if they were not asked for.
    files: Mapping[int, Sequence[File]] | None
    inodes: Mapping[int, Sequence[int]] | None
    failure: str | None

    def text(self) -> Iterator[str]:
        """A line per mount as crash prints it, with its files and dirty inodes below."""
        width = self.word * 2
        rows = [("MOUNT".center(width), "SUPERBLK".center(width), "TYPE", "DEVNAME", "DIRNAME")]
        for one in self.mounts:
            address, block = f"{one.address:{width}x}", f"{one.super_block:{width}x}"
            rows.append((address, block, visible(one.type), visible(one.device), visible(one.path)))
        heading, *lines = columns(rows, "<<<<<")
        if self.files is None and self.inodes is None:
            yield heading
            yield from lines
            return
        for i, (one, line) in enumerate(zip(self.mounts, lines, strict=True)):
            if i:
                yield ""
            yield heading
            yield line
            if self.files is not None:
                yield from self._open(self.files.get(one.super_block, ()))
            if self.inodes is not None:
                yield "DIRTY INODES"
                inodes = self.inodes.get(one.super_block, ())
                yield from (f"{inode:{width}x}" for inode in inodes)
                if not inodes:
                    yield "(none)"

    def _open(self, files: Sequence[File]) -> Iterator[str]:
        width = self.word * 2
        yield "OPEN FILES:"
        if not files:
            yield "(none)"
            return
        yield f"{'DENTRY':^{width}} {'INODE':^{width}} TYPE PATH"
        for one in files:
            yield (
                f"{one.dentry:{width}x} {one.inode:{width}x} {one.type:4} {visible(one.path)}"
            ).rstrip()

    def json(self) -> JSON:
        """The same."""
        return {"domain": self.domain, "mounts": map(self._json, self.mounts)}

    def _json(self, one: Mount) -> MountJson:
        found: MountJson = {
            "mount": hex(one.address),
            "vfsmount": hex(one.vfsmount),
            "super_block": hex(one.super_block),
            "id": one.number,
            "type": one.type,
            "device": one.device,
            "path": one.path,
        }
        if self.files is not None:
            found["files"] = [
                {
                    "dentry": hex(file.dentry),
                    "inode": hex(file.inode),
                    "type": file.type,
                    "path": file.path,
                }
                for file in self.files.get(one.super_block, ())
            ]
        if self.inodes is not None:
            inodes = self.inodes.get(one.super_block, ())
            found["dirty_inodes"] = [hex(inode) for inode in inodes]
        return found
