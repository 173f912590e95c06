"""The hypervisor: its structs, heap, stacks and notes, for 32 and 64 bits."""
