"""The page in a headless Chromium."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from xenkdump_fast import report
from xenkdump_fast.report.model import Content

from .browser import Page, browser
from .hostile import poisoned

WIDTHS = (400, 1600)
#: Where CI keeps the pictures of the page.
SCREENSHOTS = os.environ.get("XKDUMP_SCREENSHOTS")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def file(content: Content, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    report.write_html(content, path)
    return path


def unfold(page: Page) -> None:
    """Opens all parts, as for printing: also what is in them must not overflow."""
    page.value("document.getElementById('unfold').click()")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits(page: Page, file: Path, width: int, dark: bool) -> None:
    page.complaints.clear()
    page.open(file, width, dark=dark)
    assert page.value("document.documentElement.scrollWidth") <= width
    unfold(page)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.querySelectorAll('main details:not([open])').length") == 0
    assert page.complaints == []
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert (light < 64) if dark else (light > 192)
    if SCREENSHOTS:
        folder = Path(SCREENSHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        page.open(file, width, dark=dark)
        page.screenshot(folder / f"report-{width}-{'dark' if dark else 'light'}.png")


#: Parts that would be scrolled sideways.
SCROLLED = (
    "[...document.querySelectorAll('main *, body > .scroll')]"
    ".filter((part) => part.clientWidth && part.scrollWidth > part.clientWidth + 1)"
    ".filter((part) => getComputedStyle(part).overflowX !== 'visible')"
    ".map((part) => part.outerHTML.slice(0, 200))"
)


def test_nothing_is_scrolled_sideways_on_a_phone(page: Page, file: Path) -> None:
    page.open(file, 420)
    unfold(page)
    assert page.value("document.querySelectorAll('.scroll, pre').length") > 10
    assert page.value(SCROLLED) == []
    # Rows are blocks, with the names of the columns.
    cell = "document.querySelector('td[data-of]')"
    assert page.value(f"getComputedStyle({cell}).display") == "block"
    name = page.value(f"{cell}.closest('table').querySelector('th').textContent")
    assert page.value(f"getComputedStyle({cell}, '::before').content") == f'"{name}: "'
    assert page.value("getComputedStyle(document.querySelector('thead')).display") == "none"
    page.open(file, 1600)
    assert page.value(f"getComputedStyle({cell}).display") == "table-cell"


def test_nothing_else_is_requested(page: Page, file: Path) -> None:
    page.requested.clear()
    page.open(file, 1600)
    assert page.requested == [file.as_uri()]


def test_links_lead_somewhere(page: Page, file: Path) -> None:
    page.open(file, 1600)
    dead = (
        "[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))"
        ".filter((to) => !to.startsWith('#') || !document.getElementById(to.slice(1)))"
    )
    assert page.value(dead) == []
    ids = "[...document.querySelectorAll('[id]')].map((part) => part.id)"
    found = page.value(ids)
    assert len(found) == len(set(found))


def test_a_link_opens_what_it_leads_to(page: Page, file: Path) -> None:
    page.open(file, 1600)
    task = "document.querySelector('#died a[href*=\"-t0x\"]')"
    target = page.value(f"{task}.getAttribute('href').slice(1)")
    row = f"document.getElementById('{target}')"
    assert page.value(f"{row}.closest('details').open") is False
    page.value(f"{task}.click()")
    # The event comes after the click.
    page.call(
        "Runtime.evaluate",
        expression="new Promise((done) => setTimeout(done))",
        awaitPromise=True,
    )
    assert page.value(f"{row}.closest('details').open") is True


def test_frames_lead_to_tasks(page: Page, file: Path) -> None:
    page.open(file, 1600)
    frames = "[...document.querySelectorAll('pre a')].map((a) => a.getAttribute('href'))"
    functions = set(page.value(frames))
    assert functions
    rows = "document.getElementById('{}').querySelectorAll('a[href*=\"-t0x\"]').length"
    assert all(page.value(rows.format(to[1:])) > 0 for to in functions)


def test_keys(page: Page, file: Path) -> None:
    page.open(file, 1600)
    focused = "document.activeElement.textContent"
    page.press("j")
    assert page.value(focused) == "What died and why"
    page.press("j")
    second = page.value(focused)
    assert second != "What died and why"
    page.press("k")
    assert page.value(focused) == "What died and why"
    before = page.value("getComputedStyle(document.body).backgroundColor")
    page.press("t")
    assert page.value("getComputedStyle(document.body).backgroundColor") != before
    page.press("/")
    assert page.value("document.activeElement.closest('nav') !== null") is True
    folded = "document.querySelector('main details')"
    page.value(f"{folded}.querySelector('summary').focus()")
    page.press("o")
    assert page.value(f"{folded}.open") is True


def test_it_is_readable_without_script(page: Page, file: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(file, 1600)
        assert page.value("document.querySelector('#died').offsetHeight") > 0
        assert page.value("document.getElementById('theme').hidden") is True
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_it_is_printed(page: Page, file: Path) -> None:
    page.open(file, 1600)
    assert page.pdf().startswith(b"%PDF")
    # A4 without margins is 794 pixels wide. Printing opens what is closed.
    page.open(file, 720)
    page.value("dispatchEvent(new Event('beforeprint'))")
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.value("document.documentElement.scrollWidth") <= 720
        assert page.value("document.querySelector('nav').offsetHeight") == 0
        assert page.value("document.querySelectorAll('main details:not([open])').length") == 0
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_hostile_text_stays_text(page: Page, content: Content, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    report.write_html(poisoned(content), path)
    page.complaints.clear()
    page.requested.clear()
    page.open(path, 400)
    unfold(page)
    assert page.value("typeof window.poisoned") == "undefined"
    assert page.value("document.querySelectorAll('script').length") == 1
    assert page.value("document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert page.value("document.documentElement.scrollWidth") <= 400
    assert page.requested == [path.as_uri()]
    assert page.complaints == []
