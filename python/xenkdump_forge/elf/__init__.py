"""ELF: the file format, notes, and the vmcore that holds them with the memory."""
