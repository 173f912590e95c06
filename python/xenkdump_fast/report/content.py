"""Gathers what a report says."""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import signature
from .._native import AbsentError
from ..isolation import isolated
from ..limits import MAX_REPORT_PROBLEMS
from ..progress import each
from . import died, domains, hypervisor, memory_picture, redaction
from .builds import Builds
from .domains import Gathered
from .frames import short
from .model import Content, Crash, Died, File, Problem
from .sizes import Sizes

if TYPE_CHECKING:
    from ..session import Dump
    from ..xen.host import XenHost

#: Domains after which the objects of their kernels are freed at once: symbols and types, which
#: refer to each other. Those of more domains are left to the interpreter, which takes less time.
_COLLECTED = 8
#: Words of warnings about answers that rest on something that is not verified.
_UNCERTAIN = (
    r"(?i)cannot verify|\bmay\b|guess|assum|taken for|inferred|not certain|stale|likely|"
    r"unreliable|\bor shadow\b|sample|without xen-syms|has no reason"
)


def content(
    dump: "Dump",
    *,
    vmlinux: str | os.PathLike[str] | None = None,
    xen: "XenHost | None" = None,
    redact: bool = False,
) -> Content:
    """What a report of a dump says.

    ``vmlinux`` is used for the domains that run it. ``xen`` is the hypervisor, opened with its
    symbols; by default it is read without them. With ``redact``, host names, network addresses,
    values of command lines and data of users are left out.
    """
    problems: list[Problem] = []
    builds = Builds(dump, None if vmlinux is None else os.fspath(vmlinux))
    prefix = f"{dump.path}: "
    is_host = dump.is_xen_host
    host = _hypervisor(dump, xen, problems) if is_host else None
    gathered: list[Gathered] = []
    crashes: dict[int, Crash] = {}
    found_xen = None
    picture = None
    left_out = 0
    if is_host:
        records = {} if host is None else {record.id: record for record in host.domains()}
        # dom0 can be found by the notes alone.
        numbers = sorted({0, *records})
        sizes = Sizes.of(len(numbers))
        left_out = max(0, len(numbers) - sizes.domains)
        texts = [] if host is None else host.warnings
        if host is not None:
            found_xen = hypervisor.gather(host, sizes)
        with _collecting():
            for number in each(numbers[: sizes.domains], "domain"):
                with isolated(f"domain {number} is left out", texts.append):
                    record = records.get(number)
                    if record is None:
                        gathered.append(domains.without_record(dump, number, builds, sizes))
                    else:
                        gathered.append(domains.of_host(dump, record, builds, sizes))
                if len(gathered) <= _COLLECTED:
                    gc.collect()
        if host is not None:
            with isolated("the picture of memory is left out", texts.append):
                picture = memory_picture.of_host(host)
            if picture is None:
                texts.append("who owns machine memory is not known: no frame table can be read")
            if host.symbols is None:
                text = "without xen-syms: names of Xen's functions, its clock rate and memory size"
                problems.append({"where": "Xen", "kind": "missing", "text": text})
        if picture is None:
            with isolated("the picture of memory is left out", texts.append):
                picture = memory_picture.of_machine(dump.native)
        _add(problems, prefix, "Xen", texts)
    else:
        gather = domains.of_file if dump.is_domain_file else domains.bare
        gathered.append(gather(dump, builds, Sizes.of(1)))
        texts = []
        with isolated("the picture of memory is left out", texts.append):
            picture = memory_picture.of_machine(dump.native)
        _add(problems, prefix, "dump", texts)
    for one in gathered:
        if one.crash is not None:
            crashes[one.domain["id"]] = one.crash
        where = f"domain {one.domain['id']}" if is_host else "kernel"
        _add(problems, prefix, where, one.warnings)
        if one.domain["why"] is not None:
            _add(problems, prefix, where, [f"no kernel: {one.domain['why']}"])
    if vmlinux is not None and not builds.vmlinux_used:
        whose = "any domain" if is_host else "the dump"
        text = f"{os.path.basename(vmlinux)} is not the kernel of {whose}: it is not used"
        _add(problems, prefix, "dump", [text])
    if picture is not None:
        _add(problems, prefix, "memory", picture.doubts)
    _add(problems, prefix, "dump", dump.warnings)
    every = [one.domain for one in gathered]
    death = died.find(found_xen, every, crashes, is_host=is_host)
    if death["crash"] is not None:
        death["signature"] = _signature(dump, builds, death, problems)
    found: Content = {
        "file": _file(dump),
        "redacted": redact,
        "died": death,
        "xen": None if found_xen is None else found_xen.xen,
        "domains": every,
        "more_domains": left_out,
        "memory": None if picture is None else picture.picture,
        "problems": problems[:MAX_REPORT_PROBLEMS],
    }
    return redaction.redacted(found) if redact else found


def _signature(dump: "Dump", builds: Builds, found: Died, problems: list[Problem]) -> str | None:
    """The signature of what died; None if it has none."""
    texts: list[str] = []
    death = None
    with isolated("the signature is left out", texts.append):
        death = signature.of(dump, lambda number: builds.opened(number, None), texts.append)
    _add(problems, f"{dump.path}: ", "signature", texts)
    if death is None or death.signature is None:
        return None
    if death.domain != found["domain"]:
        found["doubts"].append(f"the signature is that of {death.title}")
    return str(death.signature)


@contextmanager
def _collecting() -> Iterator[None]:
    """Within it a collection of garbage looks at new objects only, which takes less time."""
    if gc.get_freeze_count():
        yield  # what the caller has frozen stays so
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _hypervisor(dump: "Dump", xen: "XenHost | None", problems: list[Problem]) -> "XenHost | None":
    """The hypervisor; None if its memory cannot be read."""
    try:
        return xen or dump.hypervisor
    except AbsentError as error:
        _add(problems, f"{dump.path}: ", "Xen", [f"nothing of Xen can be read: {error}"])
        return None


def _add(problems: list[Problem], prefix: str, where: str, texts: list[str]) -> None:
    """Adds the texts without the path of the dump, which most of them have."""
    for text in dict.fromkeys(text.replace(prefix, "") for text in texts):
        is_uncertain = re.search(_UNCERTAIN, text) is not None
        kind = "uncertain" if is_uncertain else "missing"
        problems.append({"where": where, "kind": kind, "text": short(text)})  # type: ignore[typeddict-item]


def _file(dump: "Dump") -> File:
    native = dump.native
    kind = "bare machine"
    if dump.is_xen_host:
        kind = "Xen host"
    elif dump.is_domain_file:
        kind = "file of a domain"
    return {
        "path": dump.path,
        "format": native.format,
        "size": native.size,
        "memory_held": native.memory_held,
        "memory_size": native.memory_size,
        "kind": kind,  # type: ignore[typeddict-item]
    }
