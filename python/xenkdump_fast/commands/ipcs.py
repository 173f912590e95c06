"""``ipcs``: System V IPC."""

import argparse
from collections.abc import Iterator, Sequence

from .._native import AbsentError
from .._typing import NamedTuple, NotRequired, TypedDict, TypeVar
from ..limits import MAX_DEVICES_READ
from ..linux import ipc, namespaces
from ..linux.ipc import Queue, Segment, Semaphores
from ..output.json_types import Count, Hex
from ..output.table import columns
from ..parsing import number
from ..session import Domain
from . import addresses
from .contract import Operands
from .selection import for_each

OPERANDS = Operands(
    "ID|ADDRESS", "only objects with this id, or with the struct at this address in hex"
)
_Object = TypeVar("_Object", Segment, Semaphores, Queue)


class Options(NamedTuple):
    """Which kinds of objects; all of them if none is chosen."""

    operands: Sequence[str] = ()
    semaphores: bool = False
    memory: bool = False
    #: Shared memory with its pages.
    pages: bool = False
    queues: bool = False
    #: The task in whose IPC namespace they are.
    namespace: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``ipcs``."""
    parser.add_argument("-s", "--semaphores", action="store_true", help="sets of semaphores")
    parser.add_argument("-m", "--memory", action="store_true", help="shared memory")
    parser.add_argument("-M", "--pages", action="store_true", help="shared memory, with its pages")
    parser.add_argument("-q", "--queues", action="store_true", help="message queues")
    parser.add_argument(
        "-n",
        "--namespace",
        metavar="PID|TASK|COMM",
        help="the IPC namespace of this task; the default is the initial one",
    )


def run(target: Domain, options: Options = Options()) -> "Objects":
    """Reads the objects of a namespace.

    AbsentError if the kernel's types are not known, or an operand matches nothing.
    """
    kernel = target.kernel
    if options.namespace is None:
        namespace = namespaces.initial(kernel, "ipc_ns")
    else:
        task = addresses.process(target, options.namespace)
        namespace = namespaces.of_task(kernel, task.address, "ipc_ns")
    memory = options.memory or options.pages
    everything = not (options.semaphores or memory or options.queues)
    with kernel.budget("structs of System V IPC", MAX_DEVICES_READ):
        found = Objects(
            target.id,
            list(ipc.segments(kernel, namespace, pages=options.pages))
            if memory or everything
            else None,
            list(ipc.semaphores(kernel, namespace)) if options.semaphores or everything else None,
            list(ipc.queues(kernel, namespace)) if options.queues or everything else None,
        )
    return found if not options.operands else _matching(target, found, options.operands)


def _matching(target: Domain, found: "Objects", operands: Sequence[str]) -> "Objects":
    """Those that an operand names; kinds without one are left out."""
    ids: set[int] = set()
    chosen: set[int] = set()
    every: Sequence[Segment | Semaphores | Queue] = (
        *(found.segments or ()),
        *(found.semaphores or ()),
        *(found.queues or ()),
    )

    def add(text: str) -> None:
        decimal, address = number(text, 10), number(text, 16)
        by_id = [one for one in every if one.permissions.id == decimal]
        by_address = [one for one in every if one.address == address]
        if not by_id and not by_address:
            raise AbsentError(f"{target.dump.path}: domain {target.id}: no IPC object {text}")
        if by_id and decimal is not None:
            ids.add(decimal)
        chosen.update(one.address for one in by_address)

    failure = for_each(operands, add)

    def kept(objects: Sequence[_Object] | None) -> Sequence[_Object] | None:
        shown = [one for one in objects or () if one.permissions.id in ids or one.address in chosen]
        return shown or None

    return found._replace(
        segments=kept(found.segments),
        semaphores=kept(found.semaphores),
        queues=kept(found.queues),
        failure=failure,
    )


class ObjectJson(TypedDict):
    """What all objects have. ``permissions`` are octal, as ``ls`` counts them."""

    address: Hex
    key: Hex
    id: int
    uid: Count
    permissions: str


class PagesJson(TypedDict):
    """The pages of a segment; ``resident`` and ``swapped`` are null of huge pages."""

    inode: Hex
    size: Count
    resident: int | None
    swapped: int | None


class SegmentJson(ObjectJson):
    """Shared memory. ``pages`` only with ``-M``, if they are known."""

    bytes: Count
    attached: int
    status: list[str]
    pages: NotRequired[PagesJson]


class SemaphoresJson(ObjectJson):
    """A set of semaphores."""

    semaphores: int


class QueueJson(ObjectJson):
    """A message queue."""

    used_bytes: int
    messages: int


class JSON(TypedDict):
    """What ``ipcs --json`` prints: the kinds that were asked for."""

    domain: Count
    shared_memory: NotRequired[list[SegmentJson]]
    semaphores: NotRequired[list[SemaphoresJson]]
    message_queues: NotRequired[list[QueueJson]]


class Objects(NamedTuple):
    """The objects of a namespace; None for a kind that is not shown."""

    domain: int
    segments: Sequence[Segment] | None
    semaphores: Sequence[Semaphores] | None
    queues: Sequence[Queue] | None
    failure: str | None = None

    def text(self) -> Iterator[str]:
        """A table per kind, as crash prints them; with pages one per segment."""
        for i, table in enumerate(self._tables()):
            if i:
                yield ""
            yield from table

    def _tables(self) -> Iterator[Iterator[str]]:
        if self.segments is not None:
            with_pages = [one for one in self.segments if one.pages is not None]
            for one in with_pages:
                yield _segment_with_pages(one)
            others = [one for one in self.segments if one.pages is None]
            if others or not with_pages:
                yield _segments(others)
        if self.semaphores is not None:
            rows = [(*_common(one), str(one.number)) for one in self.semaphores]
            yield _table("SEM_ARRAY", "SEMID", ["NSEMS"], rows)
        if self.queues is not None:
            yield _table(
                "MSG_QUEUE",
                "MSQID",
                ["USED-BYTES", "MESSAGES"],
                [(*_common(one), str(one.used), str(one.messages)) for one in self.queues],
            )

    def json(self) -> JSON:
        """The same."""
        found: JSON = {"domain": self.domain}
        if self.segments is not None:
            found["shared_memory"] = [_segment_json(one) for one in self.segments]
        if self.semaphores is not None:
            found["semaphores"] = [
                {**_common_json(one), "semaphores": one.number} for one in self.semaphores
            ]
        if self.queues is not None:
            found["message_queues"] = [
                {**_common_json(one), "used_bytes": one.used, "messages": one.messages}
                for one in self.queues
            ]
        return found


def _common(one: Segment | Semaphores | Queue) -> tuple[str, ...]:
    rights = one.permissions
    return (
        f"{one.address:x}",
        f"{rights.key:08x}",
        str(rights.id),
        str(rights.uid),
        f"{rights.mode & 0o777:o}",
    )


def _table(
    name: str, id_name: str, more: Sequence[str], rows: Sequence[tuple[str, ...]]
) -> Iterator[str]:
    heading = (name, "KEY", id_name, "UID", "PERMS", *more)
    yield from columns([heading, *rows], "<" * len(heading))
    if not rows:
        yield "(none allocated)"


def _segments(segments: Sequence[Segment]) -> Iterator[str]:
    rows = [(*_common(one), str(one.size), str(one.attached), one.status) for one in segments]
    return _table("SHMID_KERNEL", "SHMID", ["BYTES", "NATTCH", "STATUS"], rows)


def _segment_with_pages(one: Segment) -> Iterator[str]:
    yield from _segments([one])
    if one.pages is not None:
        counts = (one.pages.size, one.pages.resident, one.pages.swapped)
        shown = "/".join("?" if count is None else str(count) for count in counts)
        yield f"PAGES ALLOCATED/RESIDENT/SWAPPED: {shown}"
        yield f"INODE: {one.pages.inode:x}"


def _common_json(one: Segment | Semaphores | Queue) -> ObjectJson:
    return {
        "address": hex(one.address),
        "key": hex(one.permissions.key),
        "id": one.permissions.id,
        "uid": one.permissions.uid,
        "permissions": f"{one.permissions.mode & 0o777:03o}",
    }


def _segment_json(one: Segment) -> SegmentJson:
    common = _common_json(one)
    found: SegmentJson = {
        "address": common["address"],
        "key": common["key"],
        "id": common["id"],
        "uid": common["uid"],
        "permissions": common["permissions"],
        "bytes": one.size,
        "attached": one.attached,
        "status": one.status.split(),
    }
    if one.pages is not None:
        found["pages"] = {
            "inode": hex(one.pages.inode),
            "size": one.pages.size,
            "resident": one.pages.resident,
            "swapped": one.pages.swapped,
        }
    return found
