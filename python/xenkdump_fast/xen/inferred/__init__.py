"""Layouts of Xen's structs for ``evtchn``, ``grants`` and ``sched`` without the DWARF of xen-syms.

The order of members in these structs is the same over many versions, their offsets are not: locks
and masks before them differ by version and by configuration. Each module finds its members by what
they lead to, and accepts a layout only if the dump itself proves it; else AbsentError says what is
not proved.
"""
