//! In place of `vectors.rs` on other processors: nothing is looked up in vectors.

use std::cell::Cell;
use std::sync::atomic::AtomicU32;

use super::{Sink, Source, KINDS};
use crate::addr::{Mfn, Pfn};
use crate::status::Status;

pub(super) fn decoded<I: Source, O: Sink>(
    _: &[AtomicU32],
    _: Pfn,
    _: (&[I], &[O]),
    _: &mut [Status],
    _: &[Status; KINDS],
) -> (usize, u32) {
    (0, 0)
}

pub(super) fn decode<O: Sink>(
    _: &[Cell<Mfn>],
    _: &[O],
    _: &mut [Status],
    _: &[Status; KINDS],
) -> usize {
    0
}

pub(super) fn consecutive<I: Source, O: Sink>(_: u64, _: Pfn, _: &[I], _: &[O]) -> (usize, u64) {
    (0, 0)
}

pub(super) fn flat<I: Source, O: Sink>(_: &[AtomicU32], _: Pfn, _: &[I], _: &[O]) -> (usize, u32) {
    (0, 0)
}

pub(super) fn far<I: Source, O: Sink>(_: &[AtomicU32], _: &[I], _: &[O]) -> (usize, u32) {
    (0, 0)
}

pub(super) fn summarized<I: Source, O: Sink>(
    _: &[AtomicU32],
    _: &[AtomicU32],
    _: &[I],
    _: &[O],
) -> (usize, u32) {
    (0, 0)
}
