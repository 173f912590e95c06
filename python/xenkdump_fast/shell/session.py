"""What a shell has open: the dump, its domains, and which of them commands are about."""

import argparse
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .._native import AbsentError
from ..arguments import ALL
from ..diagnostics import kind
from ..job import Targets
from ..limits import MAX_OPEN_DOMAINS
from ..session import own_kernel
from ..session.domain_id import domain_id

if TYPE_CHECKING:
    from ..linux.tasks import Task
    from ..session import Domain, Dump
    from ..xen.host import XenHost

#: The context in which commands are about Xen, as with --hypervisor.
HYPERVISOR = "hypervisor"
_XEN = (HYPERVISOR, "xen")
#: What a command is about that needs neither Xen nor a domain.
DUMP = "dump"

__all__ = ["ALL", "DUMP", "HYPERVISOR", "Context", "Session"]


class Context:
    """What the commands of a shell are about."""

    def __init__(self, where: int | str = 0) -> None:
        #: The id of a domain, HYPERVISOR or ALL.
        self.where = where
        #: The current tasks, by domain: those that ``set`` chose.
        self.tasks: dict[int, Task] = {}

    @property
    def task(self) -> "Task | None":
        """The current task; None for each command's own default."""
        return self.tasks.get(self.where) if isinstance(self.where, int) else None


class Session:
    """A dump that stays open, with the domains that were used so far.

    ``targets`` opens them as the command line says. The options about one kernel are for the domain
    that it names; others are opened with their own kernels.
    """

    def __init__(self, targets: Targets, options: argparse.Namespace) -> None:
        self._targets = targets
        self._vmlinux: str | None = options.vmlinux
        self._notes: list[str] = options.notes
        self._opened: OrderedDict[tuple[int, tuple[str, ...] | None], Domain] = OrderedDict()
        #: Warnings that were printed: by target, and None for those about the dump.
        self._known: dict[int | str | None, set[str]] = {}
        self.dump: Dump = targets.dump
        self.path: str = options.vmcore
        self.xen_syms: str | None = options.xen_syms
        self.context = Context(self.place(options.domain))
        #: The domain that the options of the command line are about.
        self._first = self.context.where if isinstance(self.context.where, int) else 0

    @property
    def xen(self) -> "XenHost":
        """The hypervisor."""
        return self._targets.xen

    def place(self, name: int | str) -> int | str:
        """The context that ``name`` stands for. AbsentError if no domain has this name.

        An id is verified when the domain is opened.
        """
        if name == ALL:
            return ALL
        if name in _XEN:
            if not self.dump.is_xen_host:
                raise AbsentError(f"{self.path}: not the dump of a Xen host")
            return HYPERVISOR
        return domain_id(self.dump, name)

    @property
    def has_domains(self) -> bool:
        """Whether the dump is of a Xen host, so that there may be several domains."""
        return self.dump.is_xen_host

    def vmlinux(self, where: int | str) -> str | None:
        """The vmlinux of the command line, for what it is for: its domain, and all of them."""
        return self._vmlinux if where in (ALL, DUMP, self._first) else None

    def domain(
        self, number: int | str, vmlinux: str | None = None, unwind: Sequence[str] | None = None
    ) -> "Domain":
        """A domain with its kernel, which is opened when it is used first."""
        number = domain_id(self.dump, number)
        key = number, None if unwind is None else tuple(unwind)
        found = self._opened.get(key)
        if found is None:
            found = self._open(number, unwind)
            self._opened[key] = found
            while len(self._opened) > MAX_OPEN_DOMAINS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(key)
        return found

    def _open(self, number: int, unwind: Sequence[str] | None) -> "Domain":
        if number == self._first:
            domain = self._targets.domain(number, self._vmlinux, unwind)
            _ = domain.kernel
            return domain
        found, _ = own_kernel.opened(
            self.dump,
            number,
            self._vmlinux,
            lambda number, vmlinux: self.dump.domain(number, vmlinux, unwind=unwind),
        )
        return found

    @property
    def current(self) -> "Domain | None":
        """The current domain, opened; None if it is not a single one. Raises what opening does."""
        where = self.context.where
        return self.domain(where) if isinstance(where, int) else None

    def unreported(self, warnings: Sequence[str], where: int | str) -> Iterator[str]:
        """Those of the warnings about a target that have not been printed yet."""
        of_dump = {*self.dump.warnings, *self._notes}
        for text in warnings:
            known = self._known.setdefault(None if text in of_dump else where, set())
            name = kind(text)
            if name not in known:
                known.add(name)
                yield text
