//! (room: paging)
