"""The kinds of synthetic dump."""

#: The kinds, by name.
KINDS: dict[str, str] = {
    "2006": "i386 dom0 (Linux 2.6.16.13) of June 2006, with nothing but the CR3 note",
    "2006-pae": "the same with PAE and with Xen's memory",
    "2006-x86_64": "x86_64 dom0 (Linux 2.6.16.13) of 2006: the CR3 note, end_pfn",
    "shadow": "i386 dom0 on shadow page tables: only the frame-list-list of CRASH_INFO",
    "xen3": "i386 PAE dom0 (Linux 2.6.18.8) on Xen 3.1: CRASH_INFO with nine words",
    "32on64": "i386 PAE dom0 (Linux 4.19) on a 64-bit Xen 4.17",
    "modern": "x86_64 dom0 (Linux 6.1, BTF and ORC) on a 64-bit Xen 4.17",
    "modern-hypercall-page": "the same before XSA-466, with the hypercall page",
}
