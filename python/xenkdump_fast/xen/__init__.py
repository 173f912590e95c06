"""Readers of Xen's data structures: domains, vCPUs, the console, stacks."""
