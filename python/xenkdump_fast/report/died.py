"""What died, and why: the hypervisor, dom0, a domain, or the kernel of a bare machine."""

import re
from typing import TYPE_CHECKING

from .model import Crash, Died, Domain

if TYPE_CHECKING:
    from .hypervisor import Gathered

#: Kinds of crashes in words.
_KINDS = {
    "panic": "a panic",
    "oops": "an oops: the code of the kernel failed",
    "sysrq": "requested by SysRq",
    "nmi": "an NMI",
    "watchdog": "a watchdog: a CPU or a task did not go on",
    "hung task": "a hung task",
    "machine check": "a machine check: the hardware reported an error",
    "out of memory": "lack of memory",
    "init": "the end of init",
    "shutdown": "a shutdown",
    "requested": "requested on Xen's console",
}


def find(
    xen: "Gathered | None", domains: list[Domain], crashes: dict[int, Crash], *, is_host: bool
) -> Died:
    """What died. ``crashes`` are those of kernels, by domain."""
    if xen is not None and xen.crash is not None:
        return _of(xen.crash, domains, list(crashes.values()), [_printed(xen)], [])
    reason = None if xen is None else xen.header.reason
    dom0 = crashes.get(0)
    if not is_host:
        if dom0 is None:
            return _unknown("the kernel's log has no message of a panic", [], [])
        return _of(dom0, domains, [], _logged(dom0), [])
    for crash in crashes.values():
        crash["who"] = "dom0" if crash["domain"] == 0 else "domain"
    others = [crash for number, crash in sorted(crashes.items()) if number != 0]
    says_dom0 = re.match(r"(Hardware Dom0|Domain 0) (crashed|shutdown)", reason or "")
    if says_dom0 and xen is not None:
        if dom0 is not None:
            return _of(dom0, domains, others, [_printed(xen), *_logged(dom0)], [])
        died = _unknown("", [_printed(xen)], ["dom0's log has no message of a panic"])
        died["who"], died["domain"] = "dom0", 0
        is_shutdown = says_dom0[2] == "shutdown"
        died["kind"] = "shutdown" if is_shutdown else "panic"
        if "watchdog" in (reason or ""):
            died["kind"] = "watchdog"
        died["summary"] = f"Dom0 has {'shut down' if is_shutdown else 'crashed'}: {reason}"
        died["others"] = others
        return died
    doubts = ["Xen's console has no reason of a crash"]
    if dom0 is not None:
        return _of(dom0, domains, others, _logged(dom0), doubts)
    fatal = [crash for crash in others if is_fatal(crash)]
    if fatal:
        doubts.append("the host may have been dumped for another reason")
        rest = [crash for crash in others if crash is not fatal[0]]
        return _of(fatal[0], domains, rest, _logged(fatal[0]), doubts)
    died = _unknown("neither Xen's console nor a kernel's log has a reason", [], doubts)
    recorded = [domain["id"] for domain in domains if "crashed" in domain["state"]]
    if recorded:
        # By its shutdown code; it need not run Linux.
        died["who"] = "dom0" if recorded[0] == 0 else "domain"
        died["domain"], died["kind"] = recorded[0], "panic"
        died["evidence"] = [f"Xen's record of domain {number}: crashed" for number in recorded]
        name = name_of(died["who"], recorded[0])
        died["summary"] = f"{name[0].upper()}{name[1:]} crashed; why is not known."
    died["others"] = others
    return died


def _printed(xen: "Gathered") -> str:
    reason = xen.header.reason
    return f"Xen's console: {reason}" if reason else "Xen's console"


def _logged(crash: Crash) -> list[str]:
    found = [f"the kernel's log: {crash['message']}"] if crash["message"] else []
    if crash["task"] is not None:
        task = crash["task"]
        found.append(f"the panicking task: {task['comm']}, pid {task['pid']}, CPU {crash['cpu']}")
    return found


def is_fatal(crash: Crash) -> bool:
    """Whether a kernel has ended: after an oops it may have gone on."""
    message = crash["message"] or ""
    return crash["who"] == "hypervisor" or "Kernel panic" in message or crash["kind"] == "sysrq"


def name_of(who: str, domain: int | None) -> str:
    """What died, in words."""
    names = {"hypervisor": "Xen", "dom0": "dom0", "kernel": "the kernel"}
    return names.get(who) or f"domain {domain}"


def _of(
    crash: Crash, domains: list[Domain], others: list[Crash], evidence: list[str], doubts: list[str]
) -> Died:
    name = name_of(crash["who"], crash["domain"])
    release = None
    if crash["domain"] is not None:
        kernel = next((one["kernel"] for one in domains if one["id"] == crash["domain"]), None)
        release = None if kernel is None else kernel["release"]
    if release:
        name += f" (Linux {release})"
    summary = f"{name[0].upper()}{name[1:]} crashed: {_KINDS.get(crash['kind'], crash['kind'])}."
    oops = crash["oops"]
    doubts = list(doubts)
    if oops is not None and any(code["agrees"] is False for code in oops["code"]):
        doubts.append("the code in memory is not that of the log: it was patched, or damaged")
    return {
        "who": crash["who"],
        "domain": crash["domain"],
        "kind": crash["kind"],
        "summary": summary,
        "evidence": evidence,
        "doubts": doubts,
        "signature": None,
        "crash": crash,
        "others": others,
    }


def _unknown(why: str, evidence: list[str], doubts: list[str]) -> Died:
    return {
        "who": "unknown",
        "domain": None,
        "kind": "unknown",
        "summary": f"It is not known what died: {why}." if why else "",
        "evidence": evidence,
        "doubts": doubts,
        "signature": None,
        "crash": None,
        "others": [],
    }
