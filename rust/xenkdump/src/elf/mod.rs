//! (room: elf)
