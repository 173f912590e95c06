"""C types, and the debug information of an image: BTF, DWARF, ORC, CFI."""
