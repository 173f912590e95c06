"""The formats: each says the same, and none lets text from the dump be markup."""

import html.parser
import json
import re
from pathlib import Path

import pytest

from xenkdump_fast import report
from xenkdump_fast.report import blocks, folder, markdown, outline, text
from xenkdump_fast.report.blocks import Document, Lines, Picture, Section, Table, plain, spans
from xenkdump_fast.report.html import page
from xenkdump_fast.report.model import Content

from .hostile import TEXT, poisoned


def texts(document: Document) -> list[str]:
    """Every text of a document."""
    found = [document.title, document.summary]
    left: list[Section] = [document.died, *document.sections]
    while left:
        section = left.pop()
        found.append(section.title)
        left += section.sections
        for block in section.blocks:
            part: blocks.Block = block.table if isinstance(block, Picture) else block
            if isinstance(part, blocks.Facts):
                found += [plain(value) for _, value in part.rows]
            elif isinstance(part, blocks.Note):
                found.append(part.text)
            elif isinstance(part, Table):
                found += [plain(cell) for row in part.rows for cell in row]
            else:
                assert isinstance(part, Lines)
                found += [span.text for line in part.lines for span in line.spans]
    return [one.strip() for one in found if one.strip()]


class Parser(html.parser.HTMLParser):
    """The texts, tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(content: Content) -> Parser:
    parser = Parser()
    parser.feed("".join(page.pieces(outline.document(content))))
    return parser


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def unmarked(text: str) -> str:
    """A text without the marks of Markdown, or what could be one."""
    return re.sub(r"[*\\]", "", squeezed(text))


def test_all_say_the_same(content: Content) -> None:
    document = outline.document(content)
    expected = {squeezed(one) for one in texts(document)}
    assert len(expected) > 500
    as_html = squeezed(parsed(content).text)
    as_text = squeezed("\n".join(text.lines(document)))
    links = re.compile(r"(?<!\\)\[((?:\\.|[^\]\\])*)\]\(#[^)]*\)")
    as_markdown = unmarked(links.sub(r"\1", "\n".join(markdown.lines(document))))
    for one in expected:
        assert one in as_html
        assert one in as_text
        assert unmarked(one) in as_markdown


def test_it_is_one_file(content: Content) -> None:
    whole = "".join(page.pieces(outline.document(content)))
    parser = Parser()
    parser.feed(whole)
    assert {tag for tag, _ in parser.tags}.isdisjoint({"link", "img", "iframe", "object", "base"})
    for tag, attributes in parser.tags:
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "action"):
                assert value is not None
                assert value.startswith("#")
    # Names of the languages of pictures, which nothing fetches.
    addresses = set(re.findall(r"https?://[^\"' <]+", whole))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_hostile_html(content: Content) -> None:
    plainly = parsed(content)
    found = parsed(poisoned(content))
    counts = [[tag for tag, _ in parser.tags].count("script") for parser in (plainly, found)]
    assert counts == [1, 1]
    # Names of owners are in pictures, where lines of a text are elements.
    assert {tag for tag, _ in found.tags} - {tag for tag, _ in plainly.tags} <= {"tspan"}
    assert "window.poisoned=1" in found.text
    assert all(not name.startswith("on") for _, attrs in found.tags for name, _ in attrs)


def test_hostile_markdown(content: Content) -> None:
    lines = list(markdown.lines(outline.document(poisoned(content))))
    own = re.compile(r'<a id="[\w.-]+"></a>')
    assert any("poisoned" in line for line in lines)
    for line in lines:
        assert "\n" not in line
        assert line.isprintable()
        if line.startswith("    "):
            continue  # code, where nothing is markup
        rest = own.sub("", line)
        assert not re.search(r"(?<!\\)[<>]", rest), line
        assert not re.search(r"(?<!\\)\]\((?!#)", rest), line
        assert not re.search(r"(?<!\\)`", rest), line


def test_hostile_text(content: Content, tmp_path: Path) -> None:
    document = outline.document(poisoned(content))
    for file in folder.write(document, str(tmp_path / "folder")):
        written = Path(file).read_text()
        assert "\x1b" not in written
        assert "\u202e" not in written


def test_names_of_the_folder(content: Content, tmp_path: Path) -> None:
    document = outline.document(content)
    files = folder.write(document, str(tmp_path / "folder"))
    names = {Path(file).name for file in files}
    assert {"xen.log", "dom0.log", "report.log"} <= names
    assert content["xen"] is not None
    for pcpu in content["xen"]["pcpus"]:
        assert f"xen.pcpu{pcpu['pcpu']}.stack.log" in names
    assert names == {path.name for path in (tmp_path / "folder").iterdir()}
    with pytest.raises(FileExistsError):
        folder.write(document, str(tmp_path / "folder"))


def test_json_has_everything(content: Content) -> None:
    assert json.loads(json.dumps(content)) == content
    assert TEXT in json.loads(json.dumps(poisoned(content)))["died"]["summary"]


def test_a_policy_forbids_all_else(content: Content, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write_html(content, path)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', path.read_text())
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy


def test_links_of_markdown_lead_somewhere(content: Content) -> None:
    whole = "\n".join(markdown.lines(outline.document(content)))
    ids = set(re.findall(r'<a id="([^"]+)">', whole))
    links = set(re.findall(r"\]\(#([^)]+)\)", whole))
    assert links
    assert links <= ids
    assert len(re.findall(r'<a id="([^"]+)">', whole)) == len(ids)


def test_a_document_of_many_domains_is_bounded(content: Content) -> None:
    from xenkdump_fast.limits import MAX_REPORT_LOG_LINES
    from xenkdump_fast.report.sizes import Sizes

    few, many = Sizes.of(1), Sizes.of(200)
    assert few.log_lines == MAX_REPORT_LOG_LINES
    for name in ("log_lines", "stacks", "rows", "pfns"):
        assert getattr(many, name) < getattr(few, name)


def test_what_is_left_out_is_said(content: Content) -> None:
    kernel = content["domains"][0]["kernel"]
    assert kernel is not None
    kernel["task_count"] += 1234
    kernel["stack_count"] += 77
    content["more_domains"] = 9
    shown = "\n".join(text.lines(outline.document(content)))
    assert "(1234 more)" in shown
    assert "77 more are left out" in shown
    assert "(9 more)" in shown
    assert spans("x")[0].text == "x"
