"""Leaves host names, network addresses, values of command lines and data of users out."""

import re
from collections.abc import Iterator
from typing import Any

from .model import Content

#: Replaces redacted text.
REDACTED = "(redacted)"
#: Members whose texts the dump cannot influence, or that contain no text of users.
_KEPT = {"kind", "who", "label", "source", "letters", "state", "format", "generator", "symbol"}
_ADDRESSES = (
    # MAC, IPv6, IPv4. Kernel addresses, versions and PCI addresses look different.
    r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b",
    (
        r"(?<![\w:.])(?:(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}"
        r"|(?:[0-9a-fA-F]{1,4}:){1,7}:(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*)?"
        r"|::(?:[0-9a-fA-F]{1,4}:)*[0-9a-fA-F]{1,4})(?![\w:])"
    ),
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])",
)
_UUID = r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
_COMMAND_LINE = r"(?i)(command line: )(.*)$"
_USER_REGISTERS = r"\b([RE]?(?:IP|SP|[ABCD]X|[SD]I|BP)|R\d\d?|R[0-9A-Z]{2}): "
_CODE = r"\bCode: .*"


def redacted(content: Content) -> Content:
    """The same content without them."""
    names = sorted(set(_names(content)), key=len, reverse=True)
    hide = _Hiding(names, content["file"]["path"])
    for domain in content["domains"]:
        domain["nodename"] = None if domain["nodename"] is None else REDACTED
        domain["uuid"] = None if domain["uuid"] is None else REDACTED
        for vcpu in domain["vcpus"]:
            if _is_user(vcpu["registers"]):
                vcpu["registers"] = {}
        kernel = domain["kernel"]
        if kernel is not None:
            kernel["command_line"] = _values(kernel["command_line"])
            kernel["image"] = _name(kernel["image"])
            if kernel["log"] is not None:
                _without_user_code(kernel["log"]["lines"])
    xen = content["xen"]
    if xen is not None:
        xen["command_line"] = _values(xen["command_line"])
        xen["symbols"] = None if xen["symbols"] is None else _name(xen["symbols"])
        # It has the builder's name and host.
        xen["compiler"] = None if xen["compiler"] is None else REDACTED
    content["file"]["path"] = REDACTED
    found: Content = hide.everywhere(content)
    return found


def _names(content: Content) -> Iterator[str]:
    """Host names, with and without their domains."""
    for domain in content["domains"]:
        name = domain["nodename"]
        if name:
            yield name
            yield name.partition(".")[0]


def _values(line: str | None) -> str | None:
    """A command line without the values of its options."""
    if line is None:
        return None
    words = []
    for word in line.split():
        name, equals, _ = word.partition("=")
        words.append(f"{name}={REDACTED}" if equals else word)
    return " ".join(words)


def _name(path: str) -> str:
    """The last part of a path: those before it may name users."""
    return path.rpartition("/")[2]


def _is_user(registers: dict[str, str]) -> bool:
    pc = registers.get("rip", registers.get("eip"))
    if pc is None:
        return False
    number = int(pc, 16)
    return number < (0xC000_0000 if "eip" in registers else 1 << 63)


def _without_user_code(lines: list[Any]) -> None:
    """Registers and code of user space, which a kernel prints with a stack."""
    in_user = False
    for line in lines:
        text = line["text"]
        if re.search(r"\b[RE]IP: ?(00[0-9a-f]{2}:)?", text):
            selector = re.search(r"\b[RE]IP: ?([0-9a-f]{4}):", text)
            address = re.search(r"\bEIP: 0x([0-9a-f]+)", text)
            in_user = (selector is not None and int(selector[1], 16) & 3 == 3) or (
                address is not None
            )
        if in_user and (re.search(_CODE, text) or re.search(_USER_REGISTERS, text)):
            line["text"] = f"{REDACTED[:-1]}: registers or code of user space)"
        elif "Call Trace" in text or "</TASK>" in text:
            in_user = False
        if "segfault at" in text:
            line["text"] = re.sub(r"segfault at.*", f"segfault {REDACTED}", text)


class _Hiding:
    def __init__(self, names: list[str], path: str) -> None:
        self._path = path
        # A name as "localhost" or "xen" occurs in other texts, too; it says nothing.
        quoted = "|".join(re.escape(name) for name in names if len(name) > 2)
        self._names = re.compile(rf"(?i)(?<![\w.-])(?:{quoted})(?![\w-])") if quoted else None

    def text(self, text: str) -> str:
        """A text without names and addresses."""
        text = text.replace(self._path, REDACTED)
        text = re.sub(_COMMAND_LINE, lambda m: m[1] + (_values(m[2]) or ""), text)
        if self._names is not None:
            text = self._names.sub(REDACTED, text)
        for pattern in (*_ADDRESSES, _UUID):
            text = re.sub(pattern, REDACTED, text)
        return text

    def everywhere(self, part: Any, key: str = "") -> Any:
        """The same structure with its texts redacted."""
        if isinstance(part, dict):
            return {name: self.everywhere(value, name) for name, value in part.items()}
        if isinstance(part, list):
            return [self.everywhere(value, key) for value in part]
        if isinstance(part, str) and key not in _KEPT:
            return self.text(part)
        return part
