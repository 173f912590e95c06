"""Linux 2.6.16 and 2.6.18 with the Xen patches of their time."""
