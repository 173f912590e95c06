"""C types, and what an image says of them and of its stack frames: BTF, DWARF, ORC, CFI."""
