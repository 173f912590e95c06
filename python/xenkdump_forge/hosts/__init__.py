"""Whole hosts, a module per platform: Xen, its domains and the plan that describes them."""
