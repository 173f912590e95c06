//! (room: notes)
