//! (room: unwind)
