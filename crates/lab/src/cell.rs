//! State that belongs to one OS thread, inside types that the engine's traits want `Send + Sync`.
//!
//! **Invariants.**
//! - CELL-1: the value is touched by the thread that made the cell, and by no other (checked on every access).
//! - CELL-2: at most one borrow at a time (checked); no coroutine switch happens inside one, as `with` calls nothing
//!   but code of the lab's own rooms.
#![allow(unsafe_code)]

use std::cell::{Cell, UnsafeCell};
use std::mem::ManuallyDrop;

thread_local! {
    static MARK: Cell<u8> = const { Cell::new(0) };
}

/// Names the calling thread among those alive: the address of a thread-local byte.
fn this_thread() -> usize {
    MARK.with(|mark| std::ptr::from_ref(mark) as usize)
}

/// A value of one OS thread.
pub(crate) struct LabCell<T> {
    owner: usize,
    busy: Cell<bool>,
    value: ManuallyDrop<UnsafeCell<T>>,
}

// SAFETY: CELL-1: another thread that holds or shares the cell panics before it touches the value, `busy` included,
// and drops nothing.
unsafe impl<T> Send for LabCell<T> {}
// SAFETY: CELL-1, as above.
unsafe impl<T> Sync for LabCell<T> {}

struct Release<'a>(&'a Cell<bool>);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<T> LabCell<T> {
    /// A cell of the calling thread.
    pub fn new(value: T) -> LabCell<T> {
        LabCell {
            owner: this_thread(),
            busy: Cell::new(false),
            value: ManuallyDrop::new(UnsafeCell::new(value)),
        }
    }

    /// Lends the value to `f`.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        assert_eq!(
            self.owner,
            this_thread(),
            "CELL-1: a lab lives on the one OS thread that made it"
        );
        assert!(!self.busy.replace(true), "CELL-2: borrowed twice");
        let _release = Release(&self.busy);
        // SAFETY: CELL-1 and CELL-2, both checked above: no other reference to the value exists.
        f(unsafe { &mut *self.value.get() })
    }
}

impl<T> LabCell<T> {
    /// Ends a borrow whose borrower is lost: its coroutine was cut off and will never come back (TRAP-2). What it was
    /// changing may be half changed.
    pub fn abandon_borrow(&self) {
        self.busy.set(false);
    }
}

impl<T> Drop for LabCell<T> {
    fn drop(&mut self) {
        if self.owner == this_thread() {
            // SAFETY: dropped once, here, by its owner. On another thread the value leaks (CELL-1).
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_1_another_thread_is_refused() {
        let cell = LabCell::new(1);
        let refused = std::thread::scope(|s| s.spawn(|| cell.with(|v| *v)).join().is_err());
        assert!(refused);
        assert_eq!(cell.with(|v| *v), 1);
    }

    #[test]
    #[should_panic(expected = "CELL-2")]
    fn cell_2_a_second_borrow_is_refused() {
        let cell = LabCell::new(1);
        cell.with(|_| cell.with(|v| *v));
    }
}
