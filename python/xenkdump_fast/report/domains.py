"""A domain as plain data: what Xen records of it, and its kernel."""

from typing import TYPE_CHECKING, NamedTuple

from .._native import AbsentError
from ..isolation import isolated
from ..xen import domain_details
from ..xen.host import HostDomain
from . import kernels, p2m_picture
from .builds import Builds
from .frames import registers
from .model import Crash, Domain, P2mPicture, Vcpu

if TYPE_CHECKING:
    from ..session import Domain as Opened
    from ..session import Dump
    from ..xen.domain import XenDomain
    from ..xen.vcpus import XenVcpu
    from .sizes import Sizes

_KINDS = {"hvm": "HVM", "pvh": "PVH", "hvm or pvh": "HVM or PVH", "unknown": "unknown"}


class Gathered(NamedTuple):
    """What was gathered of a domain."""

    domain: Domain
    crash: Crash | None
    warnings: list[str]


def of_host(dump: "Dump", record: HostDomain, builds: Builds, sizes: "Sizes") -> Gathered:
    """A domain of a Xen host."""
    warnings: list[str] = []
    state: list[str] = []
    with isolated("its state is not known", warnings.append):
        if _has_structs(record):
            state = domain_details.read(record).state
    found = _recorded(record, state)
    found["id"] = record.id
    return _opened(dump, record.id, builds, found, record, sizes, warnings)


def _has_structs(record: HostDomain) -> bool:
    try:
        return record.xen.structs is not None
    except AbsentError:
        return False


def of_file(dump: "Dump", builds: Builds, sizes: "Sizes") -> Gathered:
    """The domain of an xl dump-core or save file."""
    from ..xen.domain import CoreDomain

    record = CoreDomain(dump.native)
    return _opened(dump, 0, builds, _recorded(record, []), record, sizes, [])


def bare(dump: "Dump", builds: Builds, sizes: "Sizes") -> Gathered:
    """A machine without Xen."""
    return _opened(dump, 0, builds, _unrecorded(0, "bare machine"), None, sizes, [])


def without_record(dump: "Dump", number: int, builds: Builds, sizes: "Sizes") -> Gathered:
    """A domain of a host of which Xen's records cannot be read: dom0, by the notes."""
    return _opened(dump, number, builds, _unrecorded(number, "PV"), None, sizes, [])


def _unrecorded(number: int, kind: str) -> Domain:
    return {
        "id": number,
        "kind": kind,
        "nodename": None,
        "uuid": None,
        "state": [],
        "pages": None,
        "max_pfn": None,
        "p2m_sources": [],
        "vcpus": [],
        "kernel": None,
        "why": None,
        "p2m": None,
    }


def _recorded(record: "XenDomain", state: list[str]) -> Domain:
    """What Xen or the toolstack has recorded."""
    kind = f"PV {record.word * 8}" if record.kind == "pv" else _KINDS.get(record.kind, record.kind)
    return {
        "id": record.id,
        "kind": kind,
        "nodename": None,
        "uuid": None if record.uuid is None else str(record.uuid),
        "state": state,
        "pages": record.pages,
        "max_pfn": record.max_pfn,
        "p2m_sources": [source.name for source in record.sources],
        "vcpus": [_vcpu(vcpu) for vcpu in record.vcpus],
        "kernel": None,
        "why": None,
        "p2m": None,
    }


def _vcpu(vcpu: "XenVcpu") -> Vcpu:
    return {
        "id": vcpu.id,
        "pcpu": vcpu.pcpu,
        "state": vcpu.state,
        "running": vcpu.running,
        "task": None,
        "frames": [],
        "why": None,
        "registers": registers(vcpu.registers),
        "registers_from": vcpu.where,
    }


def _opened(
    dump: "Dump",
    number: int,
    builds: Builds,
    found: Domain,
    record: "XenDomain | None",
    sizes: "Sizes",
    warnings: list[str],
) -> Gathered:
    """The domain with its kernel, its P2M and its warnings."""
    crash = None
    opened: Opened | None = None
    try:
        kernel = record.kernel(builds.hints) if isinstance(record, HostDomain) else None
        opened = builds.opened(number, kernel)
    except AbsentError as error:
        found["why"] = str(error).removeprefix(f"{dump.path}: domain {number}: ")
        try:
            # Without a kernel it may still have a P2M.
            opened = dump.domain(number)
        except AbsentError:
            opened = None
    if opened is not None:
        if found["why"] is None:
            image = _image(opened)
            gathered = kernels.gather(opened.kernel, image, number, sizes)
            found["kernel"], crash = gathered.kernel, gathered.crash
            found["nodename"] = gathered.nodename
            _merge(found["vcpus"], gathered.vcpus)
        found["p2m"] = _p2m(opened, sizes, warnings)
        known = set(dump.warnings)
        warnings += [text for text in opened.warnings if text not in known]
    if record is not None:
        warnings += [text for text in record.warnings if text not in warnings]
    dump.native.release()
    return Gathered(found, crash, warnings)


def _image(opened: "Opened") -> str:
    image = opened.kernel.image
    if image.is_memory:
        return "the kernel's own memory"
    return f"{image.path} (found by its build id)" if opened.found_vmlinux else image.path


def _p2m(opened: "Opened", sizes: "Sizes", warnings: list[str]) -> P2mPicture | None:
    if not opened.has_p2m:
        return None
    with isolated("the fragmentation of its P2M is not known", warnings.append):
        return p2m_picture.picture(opened.p2m, sizes.pfns)
    return None


def _merge(recorded: list[Vcpu], cpus: list[Vcpu]) -> None:
    """Adds the tasks and stacks of a kernel's CPUs to its vCPUs, which have the same numbers."""
    known = {vcpu["id"]: vcpu for vcpu in recorded}
    for cpu in cpus:
        vcpu = known.get(cpu["id"])
        if vcpu is None:
            recorded.append(cpu)
            continue
        vcpu["task"], vcpu["frames"], vcpu["why"] = cpu["task"], cpu["frames"], cpu["why"]
        if not vcpu["registers"]:
            vcpu["registers"], vcpu["registers_from"] = cpu["registers"], cpu["registers_from"]
