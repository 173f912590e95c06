//! (room: types)
