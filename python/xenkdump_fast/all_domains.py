"""``--domain all``: one command on each domain of a dump, each with its own kernel.

Domains are opened one after the other, so that a host with many of them takes the memory of one. A
domain that cannot be read, or that does not run Linux, does not end the run.
"""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NamedTuple

from ._native import AbsentError
from .commands.contract import Result, UsageError
from .output import writer
from .output.document import Nested
from .output.writer import Writer
from .session import Domain, Dump, own_kernel

#: Exceptions that concern the command or its output, not one domain.
_PASSED_ON = (UsageError, BrokenPipeError, writer.WriteError)


class Failure(NamedTuple):
    """Why a domain has no result, or an incomplete one."""

    text: str
    #: The exit status of the command on this domain alone.
    status: int


class AllDomains:
    """A command on all domains of a dump.

    ``open_domain(id, vmlinux)`` opens a domain, ``start(domain)`` runs the command on it;
    ``explain`` turns an exception into a failure, or raises it.
    """

    def __init__(
        self,
        dump: Dump,
        vmlinux: str | None,
        open_domain: Callable[[int, str | None], Domain],
        start: Callable[[Domain], Result],
        explain: Callable[[Exception], Failure],
        output: Writer,
    ) -> None:
        self._dump = dump
        self._vmlinux = vmlinux
        self._open_domain = open_domain
        self._writer = output
        self._start = start
        self._explain = explain
        self._uses_vmlinux = False
        #: Whether a domain had a result or a failure.
        self._is_any = False
        #: The highest exit status of a domain.
        self.status = 0

    def write_text(self, notes: list[str]) -> None:
        """Writes the text of each domain below a heading, then its warnings and its failure."""
        first = self._dump.warnings
        self._writer.warn([*notes, *first])
        for i, number in enumerate(self._dump.domain_ids):
            run = _Run(self, number)
            heading = ["", f"DOMAIN: {number}", ""] if i else [f"DOMAIN: {number}", ""]
            self._writer.text(chain(heading, run.text()), run.warnings)
            if run.failure is not None:
                writer.error(run.named(run.failure.text))
        later = [text for text in self._dump.warnings if text not in first]
        self._writer.warn([*later, *self._last_warnings()])

    def write_json(self, command: str, notes: list[str]) -> None:
        """Writes one object with a list of the domains, then their failures to stderr."""
        runs: list[_Run] = []

        def members() -> Iterator[Iterator[tuple[str, object]]]:
            for number in self._dump.domain_ids:
                runs.append(_Run(self, number))
                yield runs[-1].json()

        def warnings() -> list[str]:
            return [*notes, *self._dump.warnings, *self._last_warnings()]

        body = {"domains": Nested(members())}
        self._writer.json(command, self._dump.path, body, warnings)
        for run in runs:
            self._writer.warn(run.reported)
            if run.failure is not None:
                writer.error(run.named(run.failure.text))

    def _last_warnings(self) -> list[str]:
        found = []
        if self._vmlinux is not None and not self._uses_vmlinux:
            found.append(f"{self._vmlinux} is not the kernel of any domain: it is not used")
        if not self._is_any:
            self.status = max(self.status, 1)
            found.append("no domain runs Linux")
        return found

    def _open(self, number: int) -> Domain:
        """A domain with its kernel: by the given vmlinux if that is its build, else its own."""
        domain, is_given = own_kernel.opened(self._dump, number, self._vmlinux, self._open_domain)
        self._uses_vmlinux = self._uses_vmlinux or is_given
        return domain

    def _why_no_kernel(self, number: int, error: AbsentError) -> str | None:
        """Why it is no failure that a domain's kernel is not found; None if it is one."""
        if number == 0 or not self._dump.is_xen_host:
            return None
        xen = self._dump.hypervisor
        try:
            domain = xen.domain(number)
            if domain.kernel() is not None or xen.kernel_budget.exhausted:
                return None
        except AbsentError:
            return None
        why = str(error).removeprefix(f"{self._dump.path}: domain {number}: ")
        return f"no Linux kernel is in its memory: {why}"


class _Run:
    """The command on one domain."""

    def __init__(self, every: AllDomains, number: int) -> None:
        self._every = every
        self._number = number
        self._domain: Domain | None = None
        self._result: Result | None = None
        #: Why there is no result, or an incomplete one.
        self.failure: Failure | None = None
        #: Why the domain has no result without a failure.
        self._skipped: str | None = None
        #: The warnings that were returned.
        self.reported: list[str] = []

    def _run(self) -> Result | None:
        """The result; None with a reason in ``failure`` or ``_skipped``."""
        every = self._every
        try:
            self._domain = every._open(self._number)
        except AbsentError as error:
            self._skipped = every._why_no_kernel(self._number, error)
            if self._skipped is None:
                self._fail(error)
            return None
        except Exception as error:
            self._fail(error)
            return None
        try:
            self._result = every._start(self._domain)
        except Exception as error:
            self._fail(error)
            return None
        every._is_any = True
        return self._result

    def _fail(self, error: Exception) -> None:
        if isinstance(error, _PASSED_ON):
            raise error
        self.failure = self._every._explain(error)
        self._every.status = max(self._every.status, self.failure.status)
        self._every._is_any = True

    def _guarded(self, values: Iterator[Any]) -> Iterator[Any]:
        """The values up to the first error, which becomes the failure."""
        try:
            yield from values
        except Exception as error:
            self._fail(error)

    def text(self) -> Iterator[str]:
        """The lines of the domain."""
        result = self._run()
        if result is not None:
            yield from self._guarded(getattr(result, "body", result.text)())
            self._complete(result)
        elif self._skipped is not None:
            yield f"({self._skipped})"

    def json(self) -> Iterator[tuple[str, object]]:
        """The members of the domain's object."""
        result = self._run()
        body: dict[str, object] = {"domain": self._number}
        if result is not None:
            body.update(result.json())
        for key, value in body.items():
            yield key, self._guarded(value) if isinstance(value, Iterator) else value
        if self.failure is not None:
            yield "error", self.failure.text
            yield "status", self.failure.status
        elif result is not None and (failure := self._complete(result)) is not None:
            yield "failure", failure
        elif self._skipped is not None:
            yield "skipped", self._skipped
        if warnings := self.warnings():
            yield "warnings", warnings

    def _complete(self, result: Result) -> str | None:
        """Why the result is incomplete."""
        failure: str | None = getattr(result, "failure", None)
        if failure is not None and self.failure is None:
            self.failure = Failure(failure, 1)
            self._every.status = max(self._every.status, 1)
        return failure

    def warnings(self) -> list[str]:
        """The warnings about the domain that are not about the dump; it is closed then."""
        if self._domain is not None:
            dump = {*self._domain.dump.warnings}
            found = [text for text in self._domain.warnings if text not in dump]
            found += getattr(self._result, "warnings", ())
            self.reported = list(map(self.named, found))
            self._domain = self._result = None
            self._every._dump.native.release()
        return self.reported

    def named(self, text: str) -> str:
        """The text with the number of the domain."""
        mark = f"domain {self._number}"
        return text if re.search(rf"\b{mark}\b", text) else f"{mark}: {text}"
