"""The memory of a host: machine frames, the page tables and P2M of the domains in them."""
