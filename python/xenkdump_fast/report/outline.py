"""Arranges the content of a report as a document."""

from collections.abc import Iterator, Sequence

from ..limits import MAX_REPORT_OWNERS
from . import domain_outline
from .blocks import Block, Document, Facts, Line, Lines, Note, Picture, Section, Span, Table
from .died import is_fatal, name_of
from .model import Code, Content, Crash, Died, Frame, MemoryPicture, Oops, Pcpu, Problem, Xen
from .parts import date, duration, frame_line, log_lines, registers, size

__all__ = ["document"]


def document(content: Content) -> Document:
    """The document."""
    died = content["died"]
    sections = [
        *([_xen(content["xen"])] if content["xen"] is not None else []),
        *([_overview(content)] if content["file"]["kind"] == "Xen host" else []),
        *([_memory(content["memory"])] if content["memory"] is not None else []),
        *(domain_outline.section(one, content["file"]["kind"]) for one in content["domains"]),
        _problems(content),
        _file(content),
    ]
    where = content["file"]["kind"]
    return Document(f"Crash report of a {where}", died["summary"], _died(died), sections)


def _died(died: Died) -> Section:
    rows: list[tuple[str, Span | str]] = [
        ("What", Span(name_of(died["who"], died["domain"]), mark="strong")),
        ("Why", died["kind"]),
    ]
    if died["who"] == "unknown":
        rows[0] = ("What", Span("not known", mark="doubt"))
    if died["signature"] is not None:
        rows.append(("Signature", died["signature"]))
    rows += [("" if i else "Shown by", text) for i, text in enumerate(died["evidence"])]
    doubts = [Span(text, mark="doubt") for text in died["doubts"]]
    rows += [("" if i else "Doubt", span) for i, span in enumerate(doubts)]
    blocks: list[Block] = [Facts(rows)]
    if died["crash"] is not None:
        blocks += _crash(died["crash"])
    others = [
        Section(
            f"crash-{i}",
            f"{'Also crashed' if is_fatal(one) else 'In the log'}: "
            f"{name_of(one['who'], one['domain'])}",
            list(_crash(one)),
            folded=True,
        )
        for i, one in enumerate(died["others"])
    ]
    return Section("died", "What died and why", blocks, others)


def _crash(crash: Crash) -> Iterator[Block]:
    domain = crash["domain"]
    rows: list[tuple[str, Span | str]] = []
    if crash["message"]:
        rows.append(("Message", Span(crash["message"], mark="bad")))
    task = crash["task"]
    if task is not None:
        link = f"d{domain}-t{task['task']}"
        rows.append(("Task", Span(f"{task['comm']} (pid {task['pid']})", to=link)))
    if crash["cpu"] is not None:
        rows.append(("pCPU" if domain is None else "CPU", str(crash["cpu"])))
    yield Facts(rows)
    if crash["lines"]:
        yield Lines([Line([Span(text)]) for text in crash["lines"]], caption="From the log")
    if crash["oops"] is not None:
        yield from _oops(crash["oops"])
    if crash["frames"]:
        yield _stack(crash["frames"], domain)


def _oops(oops: Oops) -> Iterator[Block]:
    rows: list[tuple[str, Span | str]] = []
    if oops["title"]:
        rows.append(("Where", oops["title"]))
    if oops["error"]:
        rows.append(("Error code", oops["error"]))
    if oops["pc"]:
        place = oops["pc"]
        if oops["symbol"]:
            place += f" {oops['symbol']}+{oops['offset'] or 0:#x}"
        if oops["module"]:
            place += f" [{oops['module']}]"
        rows.append(("Instruction", Span(place, mark="strong")))
    rows.append(("Decoded from", "the log" if oops["source"] == "log" else "memory"))
    yield Facts(rows)
    for code in oops["code"]:
        yield _code(code)
    if oops["registers"]:
        yield registers(oops["registers"])


def _code(code: Code) -> Lines:
    lines = []
    for one in code["instructions"]:
        arrow = "=> " if one["marked"] else "   "
        text = f"{arrow}{one['address']}  {one['bytes']:<32}  {one['text']}"
        lines.append(Line([Span(text)], "bad" if one["marked"] else ""))
    caption = f"Code in {code['symbol']}" if code["symbol"] else "Code"
    caption += ", as in memory" if code["source"] == "memory" else f", from {code['source']}"
    agrees = {True: "; memory has the same", False: "; memory has other bytes", None: ""}
    return Lines(lines, caption=caption + agrees[code["agrees"]])


def _stack(frames: Sequence[Frame], domain: int | None) -> Lines:
    lines = [frame_line(i, frame, domain) for i, frame in enumerate(frames)]
    return Lines(lines, caption="Stack")


def _xen(xen: Xen) -> Section:
    minimum = "at least " if xen["memory_is_minimum"] else ""
    rows: list[tuple[str, Span | str | None]] = [
        ("Version", xen["version"]),
        ("Changeset", xen["changeset"]),
        ("Compiled", xen["compiled"]),
        ("Compiler", xen["compiler"]),
        ("Command line", xen["command_line"]),
        ("Time of the crash", date(xen["date"])),
        ("Uptime", duration(xen["uptime"])),
        ("pCPUs", str(len(xen["pcpus"]))),
        ("Clock rate", None if xen["mhz"] is None else f"{xen['mhz']} MHz"),
        ("Memory", minimum + size(xen["memory"])),
        ("Symbols", xen["symbols"]),
        ("Layout of structs by", xen["layout"]),
    ]
    known = [(name, value or Span("not known", mark="missing")) for name, value in rows]
    parts = [_pcpu(pcpu) for pcpu in xen["pcpus"]]
    log = xen["log"]
    if log is not None:
        parts.append(Section("xen-log", "Xen's console", [log_lines(log)], folded=True))
    return Section("xen", "The host", [Facts(known)], parts)


def _pcpu(pcpu: Pcpu) -> Section:
    number = pcpu["pcpu"]
    rows: list[tuple[str, Span | str]] = []
    if pcpu["runs"] is not None:
        rows.append(("Ran", pcpu["runs"]))
    if pcpu["online"] is False:
        rows.append(("State", "offline"))
    if pcpu["cr3"] is not None:
        rows.append(("cr3", pcpu["cr3"]))
    if pcpu["stack"] is not None:
        rows.append(("Stack", " to ".join(pcpu["stack"])))
    if pcpu["softirqs"]:
        rows.append(("Pending softirqs", ", ".join(pcpu["softirqs"])))
    blocks: list[Block] = [Facts(rows)]
    if pcpu["frames"]:
        blocks.append(_stack(pcpu["frames"], None))
    if pcpu["why"]:
        blocks.append(Note(pcpu["why"], "missing"))
    if pcpu["registers"]:
        blocks.append(registers(pcpu["registers"]))
    return Section(f"pcpu{number}", f"pCPU {number}", blocks, pcpu=number, folded=True)


def _overview(content: Content) -> Section:
    rows = []
    crashed = {
        one["domain"]: f"crashed: {one['kind']}" if is_fatal(one) else f"{one['kind']} in its log"
        for one in content["died"]["others"]
    }
    if content["died"]["crash"] is not None:
        crashed[content["died"]["crash"]["domain"]] = f"crashed: {content['died']['kind']}"
    for one in content["domains"]:
        kernel = one["kernel"]
        running = sum(vcpu["running"] for vcpu in one["vcpus"])
        state = [*one["state"]]
        if one["id"] in crashed:
            state = [text for text in state if text not in ("alive", "crashed")]
            state.insert(0, crashed[one["id"]])
        mark = "bad" if one["id"] in crashed else ""
        rows.append(
            (
                Span(str(one["id"]), to=f"d{one['id']}"),
                one["kind"],
                one["nodename"] or "",
                Span(", ".join(state), mark=mark),  # type: ignore[arg-type]
                f"{running} of {len(one['vcpus'])}",
                "" if one["pages"] is None else size(one["pages"] * 4096),
                (kernel["release"] if kernel is not None else None)
                or Span("no Linux kernel found", mark="missing"),
                "" if kernel is None else str(kernel["task_count"]),
                "" if kernel is None else str(kernel["wait_count"]),
            )
        )
    head = (
        "ID", "Kind", "Node name", "State", "vCPUs running", "Memory", "Kernel", "Tasks", "D state",
    )  # fmt: skip
    table = Table(head, rows, numbers=(0, 4, 5, 7, 8), more=content["more_domains"])
    return Section("domains", "Domains", [table])


def _memory(picture: MemoryPicture) -> Section:
    step = picture["sampled"]
    rows = []
    whole = picture["frames"] or 1
    # Owners without pages represent cells that several owners share.
    every = [owner for owner in picture["owners"] if owner["pages"]]
    largest = sorted(every, key=lambda owner: -owner["pages"])[:MAX_REPORT_OWNERS]
    for owner in [owner for owner in every if owner in largest]:
        to = None if owner["domain"] is None else f"d{owner['domain']}"
        share = f"{100 * owner['pages'] / whole:.1f} %"
        rows.append((Span(owner["name"], to=to), size(owner["pages"] * 4096), share))
    table = Table(
        ("Owner", "Memory", "Share"),
        rows,
        numbers=(1, 2),
        more=len(every) - len(largest),
        caption="Owners of memory",
    )
    each = size(picture["frames_per_cell"] * 4096)
    text = f"{size(whole * 4096)} by {picture['source']}. Each cell is {each}."
    if step > 1:
        text += f" One frame of {step} was looked at: the numbers are estimates."
    return Section(
        "memory", "Machine memory", [Note(text), Picture(picture, "Machine memory", table)]
    )


def _problems(content: Content) -> Section:
    found: list[Problem] = content["problems"]
    marks = {"missing": "missing", "uncertain": "doubt"}
    rows = [
        (Span(one["kind"], mark=marks[one["kind"]]), one["where"], one["text"])  # type: ignore[arg-type]
        for one in found
    ]
    if not rows:
        return Section("problems", "Missing and uncertain", [Note("Nothing that is known.")])
    return Section("problems", "Missing and uncertain", [Table(("Kind", "Where", "What"), rows)])


def _file(content: Content) -> Section:
    file = content["file"]
    rows: list[tuple[str, Span | str]] = [
        ("File", file["path"]),
        ("Format", file["format"]),
        ("Size", size(file["size"])),
        ("Memory in it", size(file["memory_held"])),
        ("Memory of the machine", size(file["memory_size"])),
    ]
    if content["redacted"]:
        what = "host names, network addresses, values of command lines and data of users"
        rows.append(("Redacted", Span(what, mark="missing")))
    return Section("file", "The dump", [Facts(rows)])
