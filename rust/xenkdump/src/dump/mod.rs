//! (room: dump)
