"""Reports of real dumps."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import xenkdump_fast as xk
from tests.report.browser import browser
from xenkdump_fast import report
from xenkdump_fast.report import markdown, outline, text
from xenkdump_fast.report.model import Content

pytestmark = pytest.mark.real
HOSTS = ("xen417-dom0", "xen417-three-domains", "xen417-mixed-pcpus", "xen420-pv-pvh")
MACHINES = ("bare-x86_64", "bare-i386", "bare-i386-pae", "linux73-bare")
#: The functions that call panic() for SysRq.
CALLS_PANIC = "sysrq_handle_crash"


@pytest.fixture(scope="module", params=[*HOSTS, *MACHINES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def content(name: str, dump_file: Callable[[str], str]) -> Content:
    """The content, from the vmcore alone."""
    with xk.open(dump_file(f"{name}/vmcore")) as dump:
        return report.content(dump)


def test_what_died(name: str, content: Content) -> None:
    died = content["died"]
    assert died["who"] == ("dom0" if name in HOSTS else "kernel")
    assert (died["domain"], died["kind"]) == (0, "sysrq")
    assert died["doubts"] == []
    assert died["others"] == []
    crash = died["crash"]
    assert crash is not None
    assert crash["message"] == "Kernel panic - not syncing: sysrq triggered crash"
    assert crash["task"] is not None
    assert crash["task"]["comm"] == "do_kdump"
    oops = crash["oops"]
    assert oops is not None
    # The registers in the log are those of user space: this is from the stack.
    assert (oops["source"], oops["symbol"]) == ("memory", CALLS_PANIC)
    (code,) = oops["code"]
    (marked,) = (one for one in code["instructions"] if one["marked"])
    assert re.fullmatch(r"call[lq]?\s+0x[0-9a-f]+ <panic>", marked["text"])


def test_every_domain_has_its_kernel(content: Content) -> None:
    for domain in content["domains"]:
        kernel = domain["kernel"]
        assert kernel is not None, domain["why"]
        assert domain["nodename"]
        # Without CONFIG_KALLSYMS_ALL the variable is not known, which is said.
        is_missing = any("the command line" in one["text"] for one in content["problems"])
        assert is_missing == (kernel["command_line"] is None)
        assert kernel["task_count"] == len(kernel["tasks"]) > 20
        assert sum(stack["count"] for stack in kernel["stacks"]) == kernel["task_count"]
        assert kernel["log"] is not None
        assert any(vcpu["frames"] for vcpu in domain["vcpus"])
        # Which tests of the command waits look at.
        assert kernel["wait_count"] == len(kernel["waits"])


def test_a_shared_image_is_as_good_as_an_own_one(
    dump_file: Callable[[str], str], content: Content, name: str
) -> None:
    """Domains with the same build get the image of the first one: their facts are the same."""
    with xk.open(dump_file(f"{name}/vmcore")) as dump:
        for domain in content["domains"]:
            kernel = domain["kernel"]
            assert kernel is not None
            own = dump.domain(domain["id"]).kernel
            shown = {(task["pid"], task["comm"]) for task in kernel["tasks"]}
            assert shown == {(task.pid, task.comm) for task in own.tasks()}
            assert kernel["release"] == own.release


@pytest.mark.parametrize("host", HOSTS)
def test_memory(host: str, dump_file: Callable[[str], str]) -> None:
    """The frames of each domain are as many as Xen counts."""
    with xk.open(dump_file(f"{host}/vmcore")) as dump:
        picture = report.content(dump)["memory"]
        pages = {domain.id: domain.pages for domain in dump.hypervisor.domains()}
        held = dump.native.memory_held // 4096
    assert picture is not None
    assert picture["sampled"] == 1
    kinds = {owner["kind"]: owner["pages"] for owner in picture["owners"]}
    assert {"xen", "domain", "tables", "free", "missing"} <= set(kinds)
    of_domains = sum(o["pages"] for o in picture["owners"] if o["kind"] == "domain")
    expected = sum(count or 0 for count in pages.values())
    # Page tables are pages of domains, too, and so are some pages that Xen shares with them.
    assert abs(of_domains + kinds["tables"] - expected) < 256
    assert abs(sum(o["pages"] for o in picture["owners"]) - kinds["missing"] - held) <= 1
    assert sum(o["pages"] for o in picture["owners"]) == picture["frames"]


def test_with_xen_syms(dump_file: Callable[[str], str]) -> None:
    with xk.open(dump_file("xen417-mixed-pcpus/vmcore")) as dump:
        xen = dump.xen(dump_file("xen417-mixed-pcpus/xen-syms"))
        found = report.content(dump, xen=xen)
    assert found["xen"] is not None
    assert found["xen"]["layout"] == "DWARF"
    # The domain that crashed is shutting down.
    assert [domain["state"] != [] for domain in found["domains"]] == [True, True, True]
    assert any(frame["symbol"] for pcpu in found["xen"]["pcpus"] for frame in pcpu["frames"])
    assert not any("without xen-syms" in one["text"] for one in found["problems"])


def test_redacted(name: str, content: Content, dump_file: Callable[[str], str]) -> None:
    names = {domain["nodename"] or "" for domain in content["domains"]}
    path = dump_file(f"{name}/vmcore")
    with xk.open(path) as dump:
        found = report.content(dump, redact=True)
    document = outline.document(found)
    for whole in (
        json.dumps(found),
        "\n".join(text.lines(document)),
        "\n".join(markdown.lines(document)).replace("\\", ""),
    ):
        for secret in (*names, path):
            assert not re.search(rf"(?<![\w.-]){re.escape(secret)}(?![\w-])", whole), secret
        assert not re.search(r"\b(?:\d{1,3}\.){3}\d{1,3}\b(?!-)", whole)
        assert "RSP: 002b" not in whole


def test_it_fits_in_a_browser(content: Content, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    report.write_html(content, file)
    with browser(tmp_path / "profile") as page:
        for width in (400, 1600):
            page.open(file, width)
            page.value("document.getElementById('unfold').click()")
            assert page.value("document.documentElement.scrollWidth") <= width
        assert page.complaints == []


def test_the_vmlinux_of_another_kernel_is_named(dump_file: Callable[[str], str]) -> None:
    other = dump_file("vmlinux-6.12.117")
    with xk.open(dump_file("bare-x86_64/vmcore")) as dump:
        content = report.content(dump, vmlinux=other)
    assert [(problem["where"], problem["text"]) for problem in content["problems"]] == [
        ("dump", f"{Path(other).name} is not the kernel of the dump: it is not used")
    ]
