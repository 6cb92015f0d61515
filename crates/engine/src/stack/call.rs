//! The depth of single calls: what a caller of the engine must have free below its own frame.
//!
//! **State.** A `Window` is its thread's or coroutine's own.
//! **Invariants.** PAINT-1 to PAINT-3 of the room.
#![allow(unsafe_code)]

use super::{MEASURED, WORD, deepest, paint_below, stack_pointer};
use std::cell::Cell;

/// What a frame may leave unwritten of itself: a call that ran past the end of its window may have left the last words alone.
const GAP: usize = 512;

/// The part of the running stack that is painted and read.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Its lowest address, a multiple of 8.
    pub low: usize,
    /// The stack's top.
    pub top: usize,
    /// The deepest use of the whole stack so far, in bytes, for measuring paints over its traces.
    pub seen: &'a Cell<u64>,
}

/// What one call used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallDepth {
    /// Bytes below the caller's stack pointer, the return address among them.
    pub call: u64,
    /// Bytes below the stack's top.
    pub stack: u64,
    /// The whole window was used, but for 512 bytes at most: the call may have gone deeper than it shows.
    pub whole: bool,
}

impl Window<'_> {
    /// Runs `f` and measures how far below this frame it went. `None` where stacks are not measured.
    ///
    /// The call of `f` is never inlined here, so its frame and return address are counted whole.
    ///
    /// # Safety
    /// PAINT-1 and PAINT-3: the window is mapped memory of the stack that this runs on.
    #[inline(never)]
    pub unsafe fn measure<R>(self, f: impl FnOnce() -> R) -> (R, Option<CallDepth>) {
        let before = stack_pointer();
        let high = before & !(WORD - 1);
        if !MEASURED || self.low >= high {
            return (f(), None);
        }
        // SAFETY: the caller's promise.
        unsafe {
            self.note(deepest(self.low, high));
            paint_below(self.low);
        }
        let value = call(f);
        // SAFETY: the window was painted above, and lies below this frame.
        let at = unsafe { deepest(self.low, high) };
        self.note(at);
        let depth = CallDepth {
            call: (before - at) as u64,
            stack: (self.top - at) as u64,
            whole: at < self.low + GAP,
        };
        (value, Some(depth))
    }

    fn note(&self, at: usize) {
        self.seen.set(self.seen.get().max((self.top - at) as u64));
    }
}

#[inline(never)]
fn call<R>(f: impl FnOnce() -> R) -> R {
    f()
}
