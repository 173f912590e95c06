"""Pictures as SVG, by drawsvg."""

from typing import cast

import drawsvg as draw
from markupsafe import Markup

from ..blocks import Picture
from ..model import MemoryPicture, Owner, P2mPicture
from ..parts import size

#: The width of pictures, and the margin for addresses on the left.
_WIDTH, _LEFT = 960, 96
_COLUMNS = 64
_CELL, _ROW = (_WIDTH - _LEFT) / _COLUMNS, 14
#: The width of an entry of a key, and the height of its lines.
_KEY, _KEY_ROW = 240, 20
#: Colours of domains.
_COLOURS = 8


def svg(block: Picture) -> Markup:
    """The picture as an element of the page. It contains no text from the dump."""
    found = block.of
    drawing = _memory(cast(MemoryPicture, found)) if "cells" in found else _strip(found)
    drawing.append_title(block.title)
    return Markup(drawing.as_svg(header=""))  # numbers and names of this program


def _memory(picture: MemoryPicture) -> draw.Drawing:
    """A grid of cells, row by row from address 0 up."""
    cells, owners = picture["cells"], picture["owners"]
    rows = -(-len(cells) // _COLUMNS)
    classes, keys = _classes(owners)
    per_line = int(_WIDTH // _KEY)
    top = 8 + -(-len(keys) // per_line) * _KEY_ROW
    drawing = _drawing(top + rows * _ROW + 8)
    for i, (name, text) in enumerate(keys):
        _key(drawing, i, per_line, name, text)
    # One path for each owner: a rectangle for each run of its cells in a row.
    paths: list[list[str]] = [[] for _ in owners]
    for row in range(rows):
        line = cells[row * _COLUMNS : (row + 1) * _COLUMNS]
        at = 0
        while at < len(line):
            end = at + 1
            while end < len(line) and line[end] == line[at]:
                end += 1
            owner_at = line[at]
            if owner_at is not None:
                x, y = _LEFT + at * _CELL, top + row * _ROW
                paths[owner_at].append(
                    f"M{x:.1f} {y}h{(end - at) * _CELL:.1f}v{_ROW - 1}h{(at - end) * _CELL:.1f}z"
                )
            at = end
        if row % 4 == 0:
            address = row * _COLUMNS * picture["frames_per_cell"] * 4096
            drawing.append(
                draw.Text(f"{address:#x}", 11, _LEFT - 8, top + row * _ROW + 11, text_anchor="end")
            )
    for owner, name, path in zip(owners, classes, paths, strict=True):
        if path:
            cell = draw.Path(d="".join(path), class_=f"cell {name}")
            cell.append_title(_named(owner))
            drawing.append(cell)
    return drawing


def _classes(owners: list[Owner]) -> tuple[list[str], list[tuple[str, str]]]:
    """The class of each owner, and the key. Many domains have the same colours in turn."""
    classes, keys = [], []
    domains = sum(owner["kind"] == "domain" for owner in owners)
    number = 0
    for owner in owners:
        if owner["kind"] != "domain":
            classes.append(f"o-{owner['kind']}")
            keys.append((classes[-1], _named(owner)))
            continue
        classes.append(f"o-{number % _COLOURS}")
        if domains <= _COLOURS:
            keys.append((classes[-1], _named(owner)))
        elif number == 0:
            keys.append((classes[-1], f"{domains} domains, {_COLOURS} colours"))
        number += 1
    return classes, keys


def _named(owner: Owner) -> str:
    pages = owner["pages"]
    return f"{owner['name']} {size(pages * 4096)}" if pages else owner["name"]


def _strip(picture: P2mPicture) -> draw.Drawing:
    """A strip of the pfn space, and bars with the memory in extents of each class of sizes."""
    strip, extents = picture["strip"], picture["extents"]
    drawing = _drawing(64 + len(extents) * 18)
    width = _WIDTH / max(1, len(strip))
    paths: list[list[str]] = [[] for _ in extents]
    at = 0
    while at < len(strip):
        end = at + 1
        while end < len(strip) and strip[end] == strip[at]:
            end += 1
        kind = strip[at]
        if kind is not None:
            paths[kind].append(f"M{at * width:.1f} 4h{(end - at) * width:.1f}v24H{at * width:.1f}z")
        at = end
    drawing.append(draw.Rectangle(0.5, 3.5, _WIDTH - 1, 25, class_="ground"))
    for i, path in enumerate(paths):
        if path:
            drawing.append(draw.Path(d="".join(path), class_=f"cell e-{i}"))
    drawing.append(draw.Text("pfn 0", 11, 0, 44))
    drawing.append(draw.Text(f"{picture['pages']:#x}", 11, _WIDTH, 44, text_anchor="end"))
    most = max(1, *(one["pages"] for one in extents))
    for i, one in enumerate(extents):
        y = 56 + i * 18
        drawing.append(draw.Text(one["label"], 11, 130, y + 11, text_anchor="end"))
        length = (_WIDTH - 330) * one["pages"] / most
        if one["pages"]:
            drawing.append(draw.Rectangle(140, y, max(1, round(length, 1)), 13, class_=f"e-{i}"))
        text = f"{size(one['pages'] * 4096)} in {one['extents']}" if one["extents"] else "none"
        drawing.append(draw.Text(text, 11, 148 + round(length, 1), y + 11))
    return drawing


def _drawing(height: float) -> draw.Drawing:
    return draw.Drawing(_WIDTH, height, role="img")


def _key(drawing: draw.Drawing, i: int, per_line: int, name: str, text: str) -> None:
    x, y = i % per_line * _KEY, 4 + i // per_line * _KEY_ROW
    drawing.append(draw.Rectangle(x, y, 12, 12, class_=f"key {name}"))
    drawing.append(draw.Text(text, 11, x + 18, y + 10))
