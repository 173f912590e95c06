"""Offsets of the members of Xen's structs, from the DWARF of xen-syms.

The xen-syms of most distributions has symbols but no DWARF; then ``infer`` finds the offsets. They
change with every release, so that no table has them.
"""

from .._native import AbsentError, Types
from . import compat

#: Paths of the members by our name for them, newest version first.
_MEMBERS = compat.members()


class Layout:
    """The known offsets, by the names of ``compat.members``."""

    def __init__(self, how: str = "invariants") -> None:
        self.offsets: dict[str, int] = {}
        #: ``domain.vcpu`` is a pointer to an array, not the array itself.
        self.vcpu_by_pointer = True
        #: How the offsets were found: "DWARF" or "invariants".
        self.how = how
        #: Offsets that could not be decided, and contradictions.
        self.warnings: list[str] = []

    def get(self, name: str) -> int | None:
        """The offset of a member; None if it is not known."""
        return self.offsets.get(name)


def by_types(types: Types) -> Layout:
    """All offsets from debug information; AbsentError if it does not describe domains."""
    layout = Layout(how=types.source)
    for name, paths in _MEMBERS.items():
        for path in paths:
            try:
                member = types.member(path)
            except AbsentError:
                continue
            layout.offsets[name] = member.offset
            if name == "domain.vcpu":
                layout.vcpu_by_pointer = member.kind == "ptr"
            break
    for name in ("domain.vcpu", "vcpu.domain"):
        if name not in layout.offsets:
            raise AbsentError(f"xen-syms: no debug information for {_MEMBERS[name][0]}")
    return layout
