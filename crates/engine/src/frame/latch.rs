//! Latching a page, waiting for it, and what happens when somebody lets go.
//!
//! **Context.** Waiting: a task without engine locks. Letting go: anyone, completion context included.

use super::state::{
    ERROR, EXCL, EXCL_WAIT, HASHED, HOLDERS, LOADING, ORPHAN, Released, VERSION, WAITERS,
};
use crate::engine::Engine;
use crate::trace::Event;
use crate::wait::{Channel, Waited};
use crate::world::{Nanos, World};

impl<W: World> Engine<W> {
    /// Drops a shared pin.
    #[inline(always)]
    pub(crate) fn put_shared(&self, frame: u32) {
        if self.frames.get(frame).state.drop_shared() {
            self.put_shared_slow(frame);
        }
    }

    /// A pin was dropped of a page that somebody waits for, or of an orphan.
    #[cold]
    pub(crate) fn put_shared_slow(&self, frame: u32) {
        if self.frames.get(frame).state.peek() & HOLDERS != 0 {
            // Whoever drops the last one looks again.
            return;
        }
        let released = self.frames.get(frame).state.release(0, 0);
        self.after_release(frame, released);
    }

    /// Clears and sets flags as the last act of an owner, wakes who waits, and frees the frame if that fell to us.
    #[inline]
    pub(crate) fn release(&self, frame: u32, clear: u64, set: u64) {
        let released = self.frames.get(frame).state.release(clear, set);
        if released.wake || released.free {
            self.after_release(frame, released);
        }
    }

    /// What `State::release` left to do.
    pub(crate) fn after_release(&self, frame: u32, released: Released) {
        if released.wake {
            self.wake_frame(frame);
        }
        if released.free {
            self.free_claimed(frame);
        }
    }

    /// Wakes who sleeps on `frame`.
    pub(crate) fn wake_frame(&self, frame: u32) {
        self.frames.get(frame).state.clear(WAITERS);
        self.waits.wake(&*self.world, Channel::Frame(frame));
    }

    /// Sleeps until `ready(word)` of the frame's state, or until the frame has another life than in the word `seen`: then
    /// the page is gone from it. The caller looks the page up again in any case.
    pub(crate) fn wait_frame(
        &self,
        frame: u32,
        seen: u64,
        until: Nanos,
        mut ready: impl FnMut(u64) -> bool,
    ) -> Waited {
        self.count(Event::PageWaits, 1);
        let state = &self.frames.get(frame).state;
        self.waits.wait(
            &*self.world,
            &self.stat,
            Channel::Frame(frame),
            until,
            || {
                // The flag is set in the same word that the waker changes: one of the two changes is first, and either
                // the waker sees WAITERS or we see its change.
                let s = state.set_in_life(seen, WAITERS);
                (s ^ seen) & VERSION != 0 || ready(s)
            },
        )
    }

    /// Sleeps until the page may be latched shared, or is gone.
    pub(crate) fn wait_sharable(&self, frame: u32, seen: u64, until: Nanos) -> Waited {
        self.wait_frame(frame, seen, until, |s| {
            s & HASHED == 0 || s & (EXCL | EXCL_WAIT | LOADING) == 0
        })
    }

    /// Sleeps until the page may be latched exclusively, or is gone. Keeps new shared holders out meanwhile.
    pub(crate) fn wait_exclusive(&self, frame: u32, seen: u64, until: Nanos) -> Waited {
        let state = &self.frames.get(frame).state;
        let waited = self.wait_frame(frame, seen, until, |s| {
            if s & HASHED == 0 || s & (EXCL | LOADING | HOLDERS) == 0 {
                return true;
            }
            if s & EXCL_WAIT == 0 && s & HOLDERS != 0 {
                // Only in this life: on another page nobody would ever take it back.
                state.set_in_life(seen, EXCL_WAIT);
                // Looked at again: the last holder may have left in between.
                let s = state.peek();
                return (s ^ seen) & VERSION != 0 || s & (EXCL | LOADING | HOLDERS) == 0;
            }
            false
        });
        if waited == Waited::TimedOut {
            self.stop_waiting_exclusive(frame);
        }
        waited
    }

    /// Lets shared holders in again. Others who wait exclusively set the flag anew.
    pub(crate) fn stop_waiting_exclusive(&self, frame: u32) {
        if self.frames.get(frame).state.clear(EXCL_WAIT) & EXCL_WAIT != 0 {
            self.wake_frame(frame);
        }
    }

    /// Frees a frame that the caller has claimed: EXCL on it, out of the index, no holder, no I/O (FRAME-3).
    pub(crate) fn free_claimed(&self, frame: u32) {
        if self.frames.get(frame).state.peek() & super::state::DIRTY != 0 {
            // A failed write made a superseded copy dirty again: the newer copy has the data.
            self.cancel_dirty_of(frame);
        }
        if self.unlist_claimed(frame) {
            self.retire(frame);
            self.zone.free_one(&*self.world, frame);
        }
    }

    /// Takes a claimed frame off its list. False when a reclaimer has it isolated: it is given up then, and the reclaimer
    /// frees it (LRU-2).
    pub(crate) fn unlist_claimed(&self, frame: u32) -> bool {
        let state = &self.frames.get(frame).state;
        self.lru.remove(&*self.world, &self.frames, frame, || {
            state.clear(EXCL | ERROR);
            state.set(ORPHAN);
        })
    }

    /// Ends a frame's life as a page: wakes who still sleeps on it and marks it free. The caller owns it alone and gives
    /// it to the zone.
    pub(crate) fn retire(&self, frame: u32) {
        let state = &self.frames.get(frame).state;
        debug_assert!(state.peek() & (super::state::LRU | HASHED) == 0);
        let sleepers = state.peek() & WAITERS != 0;
        state.reset(super::state::FREE);
        if planted!(self, DirtyFree) {
            state.set(super::state::DIRTY);
        }
        if sleepers {
            self.waits.wake(&*self.world, Channel::Frame(frame));
        }
        self.count(Event::Pgfree, 1);
    }
}
