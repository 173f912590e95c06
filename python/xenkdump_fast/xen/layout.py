"""Where the members of Xen's structs lie: by the DWARF of xen-syms where it has any.

Debian's and most others' xen-syms has symbols but no DWARF; ``infer`` then finds the offsets. No
offset of any version is written down anywhere: they move with every release.
"""

from .._native import AbsentError, Types

#: Members by our name for them; every name that Xen has had for each, newest first.
_MEMBERS = {
    "domain.id": ("domain.domain_id",),
    "domain.next": ("domain.next_in_list",),
    "domain.vcpu": ("domain.vcpu",),
    "domain.max_vcpus": ("domain.max_vcpus",),
    "domain.shared_info": ("domain.shared_info",),
    "domain.uuid": ("domain.handle",),
    "domain.pages": ("domain.tot_pages",),
    "domain.max_pages": ("domain.max_pages",),
    "domain.options": ("domain.options",),
    "domain.emulation": ("domain.arch.emulation_flags",),
    "vcpu.id": ("vcpu.vcpu_id",),
    "vcpu.domain": ("vcpu.domain",),
    "vcpu.processor": ("vcpu.processor",),
    "vcpu.cr3": ("vcpu.arch.cr3",),
    "vcpu.runstate": ("vcpu.runstate",),
    "vcpu.pause_flags": ("vcpu.pause_flags",),
    # In arch.guest_context before Xen 4.3.
    "vcpu.registers": ("vcpu.arch.user_regs", "vcpu.arch.guest_context.user_regs"),
    # arch.pv_vcpu in 4.3 to 4.11.
    "vcpu.gs_base": (
        "vcpu.arch.pv.gs_base_kernel",
        "vcpu.arch.pv_vcpu.gs_base_kernel",
        "vcpu.arch.guest_context.gs_base_kernel",
    ),
}


class Layout:
    """Offsets by the names above; one that is not known is not there."""

    def __init__(self, how: str = "invariants") -> None:
        self.offsets: dict[str, int] = {}
        #: ``domain.vcpu`` is a pointer to an array (Xen 4.0 on), not the array itself.
        self.vcpu_by_pointer = True
        #: How the offsets were found: "DWARF" or "invariants".
        self.how = how
        #: Facts that no evidence decided, or where the evidence contradicts itself.
        self.warnings: list[str] = []

    def get(self, name: str) -> int | None:
        """The offset of a member; None if it is not known."""
        return self.offsets.get(name)


def by_types(types: Types) -> Layout:
    """All offsets from debug information; AbsentError where it tells nothing of domains."""
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
