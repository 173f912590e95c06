"""The modules of the Rust crates import each other without cycles."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: ``use a::{b, c::{d, e as f}};``, and paths in expressions.
_USE = re.compile(r"^\s*(?:pub(?:\([a-z]+\))? )?use ([^;]+);", re.MULTILINE)
_PUB_USE = re.compile(r"^\s*pub(?:\([a-z]+\))? use ([^;]+);", re.MULTILINE)
_PATH = re.compile(r"\b(?:crate|super)(?:::\w+)+")
_COMMENT = re.compile(r"//[^\n]*")
#: Unit tests are at the end of a file, and may import anything.
_TESTS = re.compile(r"#\[cfg\(test\)\]\nmod \w+ \{.*", re.DOTALL)

Module = tuple[str, ...]


def _names(tree: str) -> Iterator[Module]:
    """The paths in the tree of a ``use``."""
    head, brace, rest = tree.partition("{")
    prefix = tuple(part for part in head.strip().split("::") if part)
    if not brace:
        yield tuple(part.split(" as ")[0].strip() for part in prefix)
        return
    depth, start, inner = 0, 0, rest.rpartition("}")[0]
    for at, char in enumerate(inner + ","):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            part, start = inner[start:at].strip(), at + 1
            if part:
                yield from (prefix + path for path in _names(part))


class Crate:
    """The modules of a crate by path, without modules of tests."""

    def __init__(self, root: Path) -> None:
        self.sources: dict[Module, str] = {}
        for path in sorted(root.rglob("*.rs")):
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] in {"tests", "testing"}:
                continue
            module = parts[:-1] if parts[-1] in {"mod", "lib"} else parts
            text = _COMMENT.sub("", path.read_text())
            self.sources[module] = _TESTS.sub("", text)
        self._exports = {module: dict(self._exported(module)) for module in self.sources}

    def _exported(self, module: Module) -> Iterator[tuple[str, Module]]:
        for tree in _PUB_USE.findall(self.sources[module]):
            for path in _names(tree):
                yield path[-1], self._absolute(module, path)

    def _absolute(self, module: Module, path: Module) -> Module:
        """A path in a module, from the root of the crate."""
        if path[0] == "crate":
            return path[1:]
        at = module
        while path and path[0] in {"super", "self"}:
            at, path = (at[:-1] if path[0] == "super" else at), path[1:]
        return at + path

    def _defining(self, path: Module) -> Module | None:
        """The module that defines the item at an absolute path; re-exports are followed."""
        for _ in range(8):
            length = len(path)
            while length and path[:length] not in self.sources:
                length -= 1
            module, rest = path[:length], path[length:]
            exported = self._exports[module].get(rest[0]) if rest else None
            if exported is None:
                return module
            path = exported + rest[1:]
        return None

    def imports(self, module: Module) -> set[Module]:
        """The modules that a module uses. A re-export alone is not a use."""
        text = self.sources[module]
        used = _PUB_USE.sub("", text)
        paths = [path for tree in _USE.findall(used) for path in _names(tree)]
        paths += [tuple(found.split("::")) for found in _PATH.findall(_USE.sub("", text))]
        found = set()
        for path in paths:
            local = module + path[:1] in self.sources
            if path[0] in {"crate", "super", "self"} or local:
                defining = self._defining(self._absolute(module, path))
                if defining is not None:
                    found.add(defining)
        return found - {module}


def cycles(graph: dict[Module, set[Module]]) -> list[set[Module]]:
    """The strongly connected components of more than one module."""
    reachable: dict[Module, set[Module]] = {}
    for start in graph:
        seen: set[Module] = set()
        stack = [start]
        while stack:
            for target in graph[stack.pop()] - seen:
                seen.add(target)
                stack.append(target)
        reachable[start] = seen
    found: list[set[Module]] = []
    for module, seen in reachable.items():
        if module in seen and not any(module in group for group in found):
            found.append({other for other in seen if module in reachable[other]})
    return found


@pytest.mark.parametrize("crate", ["xenkdump", "python"])
def test_no_import_cycles(crate: str) -> None:
    modules = Crate(ROOT / "rust" / crate / "src")
    graph = {module: modules.imports(module) for module in modules.sources}
    found = [sorted("/".join(module) for module in group) for group in cycles(graph)]
    assert found == []
