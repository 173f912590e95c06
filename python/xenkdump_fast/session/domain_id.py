"""The ids of a dump's domains; the id of one that is given by its UUID or by a name."""

import re
from collections.abc import Iterator
from operator import index

from .._native import AbsentError
from .._typing import TYPE_CHECKING
from ..isolation import isolated
from ..parsing import number
from .dump_file import DumpFile

if TYPE_CHECKING:
    from ..xen.host import HostDomain

#: The name of dom0 (tools/helpers/init-dom0), the only one that a toolstack does not choose.
_DOM0 = "domain-0"
#: How messages of Xen and of its tools number domains: d1, dom1, Domain-1.
_NUMBERED = r"(?:d|dom|domain-?)(\d+)"


def domain_ids(dump: DumpFile) -> list[int]:
    """The ids of all domains, without Xen's own; 0 alone if the dump is not of a Xen host.

    dom0 is always among them: it can be found without Xen's list of domains, which may be damaged.
    """
    if not dump.is_xen_host:
        return [0]
    try:
        found = {domain.id for domain in dump.hypervisor.domains()}
    except AbsentError as error:
        dump.warn(f"only domain 0 is known: {error}")
        found = set()
    return sorted({0, *found})


def domain_id(dump: DumpFile, given: int | str) -> int:
    """The id of the domain.

    Raises TypeError if ``given`` is neither a string nor an int, AbsentError if no domain or more
    than one has the name.
    """
    if not isinstance(given, str):
        if not isinstance(given, bool):
            try:
                return index(given)
            except TypeError:
                pass
        kind = type(given).__name__
        raise TypeError(f"a domain is given by its id (an int) or a name (a str), not by a {kind}")
    found = number(given)
    if found is not None:
        return found
    if dump.is_domain_file and given.lower() in map(str.lower, _recorded_names(dump)):
        return 0
    numbered = re.fullmatch(_NUMBERED, given, re.ASCII | re.IGNORECASE)
    if not dump.is_xen_host:
        if numbered is not None and number(numbered[1]) == 0:
            return 0
        text = f"no domain {given!r}: not the dump of a Xen host, so that there is only domain 0"
        raise AbsentError(f"{dump.path}: {text}")
    if given.lower() == _DOM0:
        return 0
    names = {domain.id: list(_names(domain)) for domain in dump.hypervisor.domains()}
    wanted = given.lower()
    ids = [number for number, known in names.items() if wanted in map(str.lower, known)]
    if not ids and numbered is not None:
        found = number(numbered[1])
        if found in names:
            return found
    if not ids:
        # The name of a host without its domain name, which xl's name of the domain often is.
        ids = [
            number
            for number, known in names.items()
            if wanted in (name.lower().partition(".")[0] for name in known)
        ]
    if len(ids) == 1:
        return ids[0]
    if ids:
        shown = ", ".join(map(str, ids))
        raise AbsentError(f"{dump.path}: domains {shown} are all named {given!r}: give the id")
    shown = ", ".join(f"{id_} ({known[-1]})" if known else str(id_) for id_, known in names.items())
    from ..suggestions import UnknownNameError  # only for errors

    text = f"{dump.path}: no domain {given!r}; domains: {shown or 'none'}"
    every = [name for known in names.values() for name in known]
    raise UnknownNameError(
        f"{text}. The names of xl are not in the dump", given, lambda: [_DOM0, *every]
    )


def _recorded_names(dump: DumpFile) -> Iterator[str]:
    """The name and the UUID that a save file has of its domain, and its kernel's node name."""
    from ..xen.domain import CoreDomain

    domain = CoreDomain(dump.native)
    if domain.name is not None:
        yield domain.name
    if domain.uuid is not None:
        yield str(domain.uuid)
    kernel = domain.kernel()
    if kernel is not None and kernel.nodename:
        yield kernel.nodename


def _names(domain: "HostDomain") -> Iterator[str]:
    """Its UUID, unless that is all zeros as dom0's, and the node name of its kernel."""
    with isolated(f"domain {domain.id} is left out", domain.warnings.append):
        if domain.uuid is not None and domain.uuid.int:
            yield str(domain.uuid)
        kernel = domain.kernel()
        if kernel is not None and kernel.nodename:
            yield kernel.nodename
