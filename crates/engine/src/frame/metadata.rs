//! Tables that live in the arena, behind the frames: descriptors, index and shadows.
//!
//! A look-up touches a bucket, a descriptor and the page; with tables on small pages each of the three would also miss
//! the TLB. In the arena they lie on the same huge pages as the data, and inside the same mapping of the same budget.
//!
//! **Invariants.**
//! - META-1: a table's elements are initialised once, before anybody else sees the table, and never dropped: they are
//!   plain atomics. Its memory lives as long as the arena, which the table keeps alive.
//! - META-2: two tables do not overlap, nor a table and the frames: the carver only moves forward.
#![allow(unsafe_code)]

use crate::world::Arena;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

enum Owner<T> {
    Arena { _arena: Arc<dyn Arena> },
    Heap { _elements: Box<[T]> },
}

/// A fixed number of `T`.
pub(crate) struct Table<T> {
    first: NonNull<T>,
    len: usize,
    _owner: Owner<T>,
}

// SAFETY: META-1: a table gives out shared references only, and keeps its memory alive.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Table<T> {}

impl<T> Deref for Table<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: META-1: `len` initialised elements from `first` on, alive as long as `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

/// Cuts tables from what is left of an arena, or makes them on the heap.
pub(crate) struct Carver {
    arena: Option<Arc<dyn Arena>>,
    at: usize,
}

impl Carver {
    /// Cuts from `arena`, from byte `at` on.
    pub(crate) fn new(arena: Arc<dyn Arena>, at: usize) -> Carver {
        arena.populate(at, arena.len() - at);
        // Loom's atomics own memory of their own and must be dropped.
        let arena = (!cfg!(loom)).then_some(arena);
        Carver { arena, at }
    }

    /// Makes tables on the heap.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn heap() -> Carver {
        Carver { arena: None, at: 0 }
    }

    /// Bytes that a table of `n` elements takes at most.
    pub(crate) const fn bytes_for<T>(n: usize) -> usize {
        n * size_of::<T>() + align_of::<T>()
    }

    /// A table of `n` elements, made by `make`.
    pub(crate) fn carve<T>(&mut self, n: usize, make: impl FnMut(usize) -> T) -> Table<T> {
        match self.arena.clone() {
            Some(arena) => self.carve_arena(arena, n, make),
            None => {
                let elements: Box<[T]> = (0..n).map(make).collect();
                Table {
                    first: NonNull::from(&elements[..]).cast(),
                    len: n,
                    _owner: Owner::Heap {
                        _elements: elements,
                    },
                }
            }
        }
    }

    fn carve_arena<T>(
        &mut self,
        arena: Arc<dyn Arena>,
        n: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Table<T> {
        assert!(
            !std::mem::needs_drop::<T>(),
            "META-1: elements are not dropped"
        );
        let start = self.at.next_multiple_of(align_of::<T>());
        let end = start + n * size_of::<T>();
        assert!(end <= arena.len(), "META-2: the arena holds all tables");
        self.at = end;
        // SAFETY: META-2: in bounds by the assertion; an arena's base is 2 MiB-aligned, so `start` decides the alignment.
        let first = unsafe { arena.base().add(start) }.cast::<T>();
        for i in 0..n {
            // SAFETY: META-1: inside the table, which nobody else has seen yet.
            unsafe { first.add(i).write(make(i)) };
        }
        Table {
            first: NonNull::new(first).expect("an arena is not at 0"),
            len: n,
            _owner: Owner::Arena { _arena: arena },
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// 2 MiB-aligned memory, as an arena promises.
    struct Block(*mut u8, std::alloc::Layout);
    // SAFETY: a test's memory, reached through tables only.
    unsafe impl Send for Block {}
    // SAFETY: as above.
    unsafe impl Sync for Block {}
    impl Block {
        fn new(len: usize) -> Block {
            let layout = std::alloc::Layout::from_size_align(len, 2 << 20).unwrap();
            // SAFETY: a layout of more than zero bytes.
            Block(unsafe { std::alloc::alloc_zeroed(layout) }, layout)
        }
    }
    impl Drop for Block {
        fn drop(&mut self) {
            // SAFETY: allocated in `new` with this layout.
            unsafe { std::alloc::dealloc(self.0, self.1) }
        }
    }
    impl Arena for Block {
        fn base(&self) -> *mut u8 {
            self.0
        }
        fn len(&self) -> usize {
            self.1.size()
        }
        fn populate(&self, _: usize, _: usize) {}
    }

    #[test]
    fn tables_are_aligned_apart_and_outlive_the_carver() {
        #[repr(align(64))]
        struct Wide(u64);
        let mut carver = Carver::new(Arc::new(Block::new(1 << 16)), 4097);
        let bytes = carver.carve(3, |i| i as u8);
        let wide = carver.carve(5, |i| Wide(i as u64));
        drop(carver);
        assert_eq!(&bytes[..], &[0, 1, 2]);
        assert!(wide.iter().map(|w| w.0).eq(0..5));
        assert_eq!(wide.as_ptr().addr() % 64, 0);
        assert!(wide.as_ptr().addr() >= bytes.as_ptr().addr() + 3, "META-2");
    }

    #[test]
    #[should_panic(expected = "META-2")]
    fn a_table_beyond_the_arena_is_a_bug() {
        Carver::new(Arc::new(Block::new(4096)), 0).carve(513, |_| 0u64);
    }
}
