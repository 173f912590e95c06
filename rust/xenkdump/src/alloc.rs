//! Allocations whose size comes from a dump, an image or the caller.
//!
//! If an ordinary allocation fails, Rust ends the process. These unwind to the nearest [`catch`], which
//! returns [`NoMemory`]: many are made deep within iterators and tables that are built on first use, whose
//! callers could only pass the error on. Nothing is printed, as by a panic, and tables that were being
//! built are built again by the next call.
//!
//! Allocations of less than [`MAX_SMALL_ALLOCATION`](crate::limits::MAX_SMALL_ALLOCATION) bytes, whose number a
//! constant limits, need none of these functions. `clippy.toml` has the methods of the standard library
//! that are not allowed here.

use std::collections::{BinaryHeap, HashMap, HashSet, TryReserveError};
use std::hash::{BuildHasher, Hash};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use memmap2::{MmapMut, MmapOptions};

/// The system has no memory for something whose size comes from a dump, an image or the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not enough memory: {bytes} bytes cannot be allocated")]
pub struct NoMemory {
    /// The size of the allocation.
    pub bytes: usize,
}

/// Calls `work`. An error if one of the allocations that this module makes in it fails, in this thread
/// or in one of [`crate::parallel`].
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, NoMemory> {
    // What `work` changed was valid at every step: it is a cache, or a table whose result is dropped.
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| match payload.downcast() {
        Ok(error) => *error,
        Err(panic) => resume_unwind(panic),
    })
}

/// Unwinds to [`catch`] because `bytes` bytes cannot be allocated.
#[cold]
#[inline(never)]
pub(crate) fn fail(bytes: usize) -> ! {
    resume_unwind(Box::new(NoMemory { bytes }))
}

#[inline]
fn check<T>(result: Result<(), TryReserveError>, len: usize) {
    if result.is_err() {
        fail(len.saturating_mul(size_of::<T>()));
    }
}

/// An empty vector with space for exactly `len` elements.
pub fn with_capacity<T>(len: usize) -> Vec<T> {
    let mut vec = Vec::new();
    check::<T>(vec.try_reserve_exact(len), len);
    vec
}

/// `len` times `value`.
pub fn filled<T: Clone>(value: T, len: usize) -> Vec<T> {
    let mut vec = with_capacity(len);
    vec.resize(len, value);
    vec
}

/// `len` zeros, for a large buffer that is filled as a whole: the system provides its pages at once,
/// which takes a fraction of the time of providing each when it is first written.
pub fn mapped(len: usize) -> MmapMut {
    let map = MmapOptions::new().len(len).populate().map_anon();
    map.unwrap_or_else(|_| fail(len))
}

/// A copy of a slice.
pub fn copied<T: Copy>(slice: &[T]) -> Vec<T> {
    let mut vec = with_capacity(slice.len());
    vec.extend_from_slice(slice);
    vec
}

/// All elements of an iterator.
pub fn collect<T>(elements: impl IntoIterator<Item = T>) -> Vec<T> {
    let elements = elements.into_iter();
    let mut vec = with_capacity(elements.size_hint().0);
    for element in elements {
        push(&mut vec, element);
    }
    vec
}

/// Appends an element.
#[inline]
pub fn push<T>(vec: &mut Vec<T>, element: T) {
    if vec.len() == vec.capacity() {
        grow(vec);
    }
    vec.push(element);
}

#[cold]
fn grow<T>(vec: &mut Vec<T>) {
    check::<T>(vec.try_reserve(1), vec.len().saturating_mul(2).max(1));
}

/// Appends a copy of a slice.
pub(crate) fn extend<T: Copy>(vec: &mut Vec<T>, slice: &[T]) {
    check::<T>(vec.try_reserve(slice.len()), slice.len());
    vec.extend_from_slice(slice);
}

/// Makes space for exactly `more` elements.
pub(crate) fn reserve_exact<T>(vec: &mut Vec<T>, more: usize) {
    check::<T>(vec.try_reserve_exact(more), more);
}

/// Adds an element to a heap.
pub(crate) fn push_heap<T: Ord>(heap: &mut BinaryHeap<T>, element: T) {
    check::<T>(heap.try_reserve(1), heap.len().saturating_mul(2).max(1));
    heap.push(element);
}

/// Adds an element to a set; whether it is new.
pub(crate) fn insert<T: Hash + Eq, S: BuildHasher>(set: &mut HashSet<T, S>, element: T) -> bool {
    check::<T>(set.try_reserve(1), set.len().saturating_mul(2).max(1));
    set.insert(element)
}

/// Adds a value to a map; returns the value that it replaces.
pub(crate) fn insert_at<K: Hash + Eq, V, S: BuildHasher>(
    map: &mut HashMap<K, V, S>,
    key: K,
    value: V,
) -> Option<V> {
    check::<(K, V)>(map.try_reserve(1), map.len().saturating_mul(2).max(1));
    map.insert(key, value)
}

/// Adds a value to a map, unless its key has one.
pub(crate) fn insert_missing<K: Hash + Eq, V, S: BuildHasher>(
    map: &mut HashMap<K, V, S>,
    key: K,
    value: V,
) {
    check::<(K, V)>(map.try_reserve(1), map.len().saturating_mul(2).max(1));
    map.entry(key).or_insert(value);
}

/// The value of a key; a new one if there is none.
pub(crate) fn entry<K: Hash + Eq, V: Default, S: BuildHasher>(
    map: &mut HashMap<K, V, S>,
    key: K,
) -> &mut V {
    check::<(K, V)>(map.try_reserve(1), map.len().saturating_mul(2).max(1));
    map.entry(key).or_default()
}

/// Fails if there is no memory for `bytes` bytes now. For use before a call of code that cannot report a
/// failure, such as another crate's.
pub fn probe(bytes: usize) {
    // Otherwise the compiler may leave out an allocation that nothing uses.
    drop(std::hint::black_box(with_capacity::<u8>(bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_an_error() {
        const ALL: usize = isize::MAX as usize;
        let bytes = |failed: Result<(), NoMemory>| failed.err().map(|error| error.bytes);
        let made = |make: fn() -> usize| bytes(catch(make).map(|_| ()));
        assert_eq!(made(|| with_capacity::<u8>(ALL).len()), Some(ALL));
        assert_eq!(made(|| with_capacity::<u64>(ALL).len()), Some(usize::MAX));
        assert_eq!(made(|| filled(1_u8, ALL).len()), Some(ALL));
        assert_eq!(made(|| mapped(ALL).len()), Some(ALL));
        assert_eq!(bytes(catch(|| probe(ALL))), Some(ALL));
        let more = || reserve_exact(&mut vec![0_u8], ALL);
        assert_eq!(bytes(catch(more)), Some(ALL));
        // Larger than the address space, by the lower bound of the iterator.
        assert_eq!(
            made(|| collect(std::iter::repeat(0_u8)).len()),
            Some(usize::MAX)
        );
        assert_eq!(
            catch(|| collect([1, 2].iter().copied().filter(|n| *n > 1))),
            Ok(vec![2])
        );
        assert_eq!(catch(|| copied(&[1, 2])), Ok(vec![1, 2]));
    }

    #[test]
    fn elements_are_added() {
        let (mut vec, mut set, mut map) = (vec![1], HashSet::new(), HashMap::new());
        push(&mut vec, 2);
        extend(&mut vec, &[3, 4]);
        assert_eq!(vec, [1, 2, 3, 4]);
        assert!(insert(&mut set, 1) && !insert(&mut set, 1));
        assert_eq!(insert_at(&mut map, 1, 2), None);
        assert_eq!(insert_at(&mut map, 1, 3), Some(2));
        let mut heap = BinaryHeap::new();
        push_heap(&mut heap, 1);
        push_heap(&mut heap, 2);
        assert_eq!(heap.pop(), Some(2));
    }

    #[test]
    #[should_panic(expected = "another")]
    fn a_panic_is_not_caught() {
        let _ = catch(|| panic!("another"));
    }
}
