"""Location of a kernel in memory, and its build id."""
