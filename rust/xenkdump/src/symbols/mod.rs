//! (room: symbols)
