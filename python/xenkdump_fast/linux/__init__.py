"""What a Linux kernel keeps where: tasks, header facts, log, per-cpu data, stacks."""
