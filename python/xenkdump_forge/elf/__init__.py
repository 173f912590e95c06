"""ELF: the format, the notes, and the core file."""
