"""Reads Xen and Linux kernel crash dumps, any domain of them."""
