"""The index of triage in a headless Chromium."""

from pathlib import Path

import pytest

from tests.fleet.conftest import PACKAGES
from tests.report.browser import browser
from xenkdump_fast.fleet import index, row

for package in PACKAGES:
    pytest.importorskip(package, reason=f"{package} is not installed: the extra [fleet]")


def made(number: int, **facts: object) -> row.Row:
    found = row.empty(f"/var/crash/{'folder-' * 9}{number}/vmcore", 1 << 30, 1.7e9)
    return found | facts  # type: ignore[return-value]


def test_a_narrow_window_needs_no_scrolling(tmp_path: Path) -> None:
    text = "sysrq:" + "<-".join(["sysrq_handle_crash_with_a_long_name"] * 6)
    rows = [
        made(
            number,
            status=row.OK,
            host="a-host-with-a-long-name.example",
            kernel="6.1.0-56-amd64",
            died="dom0",
            signature="bd0d29d6",
            signature_text=text,
            message="Kernel panic - not syncing: " + "x" * 200,
            time=1794838527,
            missing=["a warning " * 20],
        )
        for number in range(3)
    ]
    rows.append(made(9, error="not a dump but " + "y" * 300))
    index.write(rows, tmp_path)
    wide = (
        "[...document.querySelectorAll('body *')]"
        ".filter((part) => part.clientWidth && part.scrollWidth > part.clientWidth + 1)"
        ".filter((part) => getComputedStyle(part).overflowX !== 'visible')"
        ".map((part) => part.outerHTML.slice(0, 200))"
    )
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / index.FILE, 420)
        page.value("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert page.value("document.querySelectorAll('td[data-of]').length") > 10
        assert page.value("document.documentElement.scrollWidth") <= 420
        assert page.value(wide) == []
        assert page.value("getComputedStyle(document.querySelector('thead')).display") == "none"
        page.open(tmp_path / index.FILE, 1600)
        assert page.value("getComputedStyle(document.querySelector('td')).display") == "table-cell"
        assert page.complaints == []
