"""Pictures as SVG."""

from collections.abc import Iterator
from typing import cast
from xml.etree.ElementTree import Element

from markupsafe import Markup

from ..blocks import Picture
from ..model import MemoryPicture, Owner, P2mPicture
from ..parts import size
from . import svg as draw

#: The width of pictures, and the margin for addresses on the left.
_WIDTH, _LEFT = 960, 96
_COLUMNS = 64
_CELL, _ROW = (_WIDTH - _LEFT) / _COLUMNS, 14
#: The width of an entry of a key, and the height of its lines.
_KEY, _KEY_ROW = 240, 20
_PER_LINE = _WIDTH // _KEY
#: Colours of domains.
_COLOURS = 8


def svg(block: Picture) -> Markup:
    """The picture as an element of the page."""
    found = block.of
    if "cells" in found:
        picture = cast(MemoryPicture, found)
        rows = -(-len(picture["cells"]) // _COLUMNS)
        height = _top(picture) + rows * _ROW + 8
        return draw.drawing(_WIDTH, height, _memory(picture), block.title)
    height = 64 + len(found["extents"]) * 18
    return draw.drawing(_WIDTH, height, _strip(found), block.title)


def _top(picture: MemoryPicture) -> int:
    """Where the grid begins, below the key."""
    _, keys = _classes(picture["owners"])
    return 8 + -(-len(keys) // _PER_LINE) * _KEY_ROW


def _memory(picture: MemoryPicture) -> Iterator[Element]:
    """A grid of cells, row by row from address 0 up."""
    cells, owners = picture["cells"], picture["owners"]
    rows = -(-len(cells) // _COLUMNS)
    classes, keys = _classes(owners)
    top = _top(picture)
    for i, (name, text) in enumerate(keys):
        left, upper = i % _PER_LINE * _KEY, 4 + i // _PER_LINE * _KEY_ROW
        yield draw.rectangle(left, upper, 12, 12, f"key {name}")
        yield draw.text(text, left + 18, upper + 10)
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
            yield draw.text(f"{address:#x}", _LEFT - 8, top + row * _ROW + 11, at_end=True)
    for owner, name, path in zip(owners, classes, paths, strict=True):
        if path:
            yield draw.path("".join(path), f"cell {name}", _named(owner))


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


def _strip(picture: P2mPicture) -> Iterator[Element]:
    """A strip of the pfn space, and bars with the memory in extents of each class of sizes."""
    strip, extents = picture["strip"], picture["extents"]
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
    yield draw.rectangle(0.5, 3.5, _WIDTH - 1, 25, "ground")
    for i, path in enumerate(paths):
        if path:
            yield draw.path("".join(path), f"cell e-{i}")
    yield draw.text("pfn 0", 0, 44)
    yield draw.text(f"{picture['pages']:#x}", _WIDTH, 44, at_end=True)
    most = max(1, *(one["pages"] for one in extents))
    for i, one in enumerate(extents):
        y = 56 + i * 18
        yield draw.text(one["label"], 130, y + 11, at_end=True)
        length = (_WIDTH - 330) * one["pages"] / most
        if one["pages"]:
            yield draw.rectangle(140, y, max(1, round(length, 1)), 13, f"e-{i}")
        text = f"{size(one['pages'] * 4096)} in {one['extents']}" if one["extents"] else "none"
        yield draw.text(text, 148 + round(length, 1), y + 11)
