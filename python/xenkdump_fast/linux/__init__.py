"""Readers of Linux's data structures: tasks, session header, log, per-CPU data, stacks."""
