"""Complete hosts, one module per platform: Xen, its domains and the plan."""
