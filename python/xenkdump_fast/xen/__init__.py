"""What Xen keeps where: domains, vCPUs, its console, its stacks."""
