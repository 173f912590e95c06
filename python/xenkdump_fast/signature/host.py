"""Which part of a host died, and of what."""

import re
from collections.abc import Callable

from .._native import AbsentError, DumpError
from .._typing import TYPE_CHECKING, Literal, NamedTuple
from ..isolation import isolated
from ..limits import MAX_SIGNATURE_DOMAINS
from ..session import Domain, Dump
from . import kernel_stack, log_text, messages
from .normal_form import Signature

if TYPE_CHECKING:
    from ..xen.host import XenHost

Died = Literal["xen", "dom0", "domain", "kernel"]


class Death(NamedTuple):
    """What died, and its signature."""

    #: Xen, dom0, another domain, or the kernel of a bare machine or of a file of one domain.
    what: Died
    #: The id of the domain; None for Xen.
    domain: int | None
    #: None if the cause is not known.
    signature: Signature | None

    @property
    def title(self) -> str:
        """``Xen``, ``dom0``, ``domain 3`` or ``kernel``."""
        return {"xen": "Xen", "domain": f"domain {self.domain}"}.get(self.what, self.what)


def of(
    dump: Dump,
    open_domain: Callable[[int], Domain] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Death | None:
    """What died in a dump; None if nothing did.

    Of a Xen host, Xen comes first, then dom0, then the other domains: a kernel whose log ends with
    a panic. ``open_domain`` opens a domain by its id, for callers that keep them open. ``warn``
    takes warnings, in place of those of the dump.

    Raises AbsentError if nothing is known to have died, but a kernel was not found.
    """
    if open_domain is None:
        open_domain = dump.domain
    if warn is None:
        warn = dump.warn
    if not dump.is_xen_host:
        domain = open_domain(dump.domain_ids[0])
        found = kernel_stack.of_kernel(domain.kernel)
        return None if found is None else Death("kernel", domain.id, found)
    lines = _console(dump, warn)
    fault = log_text.xen_fault(lines)
    if fault is not None:
        return Death("xen", None, fault.signature())
    dom0_crashed = any(re.search(messages.XEN_DOM0_CRASH, line) for line in lines)
    found, problem = None, None
    try:
        is_alive = bool(lines) and not dom0_crashed
        found = kernel_stack.of_kernel(open_domain(0).kernel, panics_only=is_alive)
    except AbsentError as error:
        problem = error
        warn(f"dom0 has no signature: {error}")
    if found is not None or dom0_crashed:
        return Death("dom0", 0, found)
    death = _of_domains(dump, open_domain, warn)
    if death is None and problem is not None:
        raise problem
    return death


def _console(dump: Dump, warn: Callable[[str], None]) -> list[str]:
    """The lines of Xen's console; empty if it is lost."""
    from ..xen import console

    try:
        xen: XenHost = dump.hypervisor
        return console.read(xen).lines
    except DumpError as error:
        warn(f"Xen's console is not known: {error}")
        return []


def _of_domains(
    dump: Dump, open_domain: Callable[[int], Domain], warn: Callable[[str], None]
) -> Death | None:
    numbers = [number for number in dump.domain_ids if number]
    if len(numbers) > MAX_SIGNATURE_DOMAINS:
        warn(
            f"only the first {MAX_SIGNATURE_DOMAINS} of {len(numbers)} domains were looked at for "
            "a fault"
        )
    for number in numbers[:MAX_SIGNATURE_DOMAINS]:
        with isolated(f"domain {number} has no signature", warn, AbsentError):
            found = kernel_stack.of_kernel(open_domain(number).kernel, panics_only=True)
            if found is not None:
                return Death("domain", number, found)
    return None
