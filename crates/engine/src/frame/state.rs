//! The state word of a frame: version (20 bits) · flags (24 bits) · shared holders (20 bits).
//!
//! Every transition is one compare-and-swap or one fetch-and-op, so that a frame's fate is a total order of changes of
//! one word and each rule ("the last one out frees") has exactly one winner.
//!
//! **Orderings.** Taking a pin or EXCL is an Acquire that pairs with the Release of whoever let go of EXCL, ended a fill
//! or ended writeback: the bytes and the key are then visible. Letting go is a Release. A transition that both takes and
//! gives is AcqRel. Plain looks are Relaxed where they only hint, Acquire where data is used after them.

use crate::sync::{AtomicU64, Ordering};

/// Mask of the shared holders.
pub(crate) const HOLDERS: u64 = (1 << 20) - 1;
/// Most shared holders of one page: while this bit of their count is set there are no new ones. One mask then tests
/// everything that refuses a pin.
pub(crate) const HOLDERS_MAX: u32 = 1 << 19;
const FULL: u64 = HOLDERS_MAX as u64;
const fn flag(n: u32) -> u64 {
    1 << (20 + n)
}
/// Latched exclusively.
pub(crate) const EXCL: u64 = flag(0);
/// Somebody waits for EXCL: no new shared holders.
pub(crate) const EXCL_WAIT: u64 = flag(1);
/// The bytes are the page's.
pub(crate) const UPTODATE: u64 = flag(2);
/// In the index under its key.
pub(crate) const HASHED: u64 = flag(3);
/// A read is in flight.
pub(crate) const LOADING: u64 = flag(4);
/// Newer than the device.
pub(crate) const DIRTY: u64 = flag(5);
/// A write is in flight.
pub(crate) const WRITEBACK: u64 = flag(6);
/// To the LRU's tail when writeback ends (PG_reclaim).
pub(crate) const RECLAIM: u64 = flag(7);
/// Referenced once since the last look.
pub(crate) const REF1: u64 = flag(8);
/// Referenced twice. Always the bit above `REF1`.
pub(crate) const REF2: u64 = flag(9);
/// The last write of this page failed.
pub(crate) const ERROR: u64 = flag(10);
/// On an LRU list.
pub(crate) const LRU: u64 = flag(11);
/// On, or meant for, the active list.
pub(crate) const ACTIVE: u64 = flag(12);
/// Somebody sleeps in the wait table under this frame.
pub(crate) const WAITERS: u64 = flag(13);
/// The reader who touches this page starts the next readahead.
pub(crate) const READAHEAD: u64 = flag(14);
/// Out of the index but not yet free: the last one out frees it.
pub(crate) const ORPHAN: u64 = flag(15);
/// Taken off its LRU list by a reclaimer, who will put it back or free it.
pub(crate) const ISOLATED: u64 = flag(16);
/// In the buddy allocator or a frame cache.
pub(crate) const FREE: u64 = flag(17);
/// Under writeback, and a newer copy has taken its place: that copy's write waits for the end of this one.
pub(crate) const SUPERSEDED: u64 = flag(18);
/// The order of pages wants to know of each hit. Tested together with `READAHEAD`.
pub(crate) const TOUCH: u64 = flag(19);
/// Lent to a backing: no page, and not free.
pub(crate) const LENT: u64 = flag(20);
/// In a block of frames that a user holds: no page.
pub(crate) const BLOCK: u64 = flag(21);
const VERSION_SHIFT: u32 = 44;
/// Counts the lives of the frame.
pub(crate) const VERSION: u64 = !0 << VERSION_SHIFT;

/// What keeps an orphan from being freed.
const BUSY: u64 = HOLDERS | EXCL | LOADING | WRITEBACK | ISOLATED;
/// What keeps a page from being reclaimed.
const UNRECLAIMABLE: u64 = HOLDERS | EXCL | EXCL_WAIT | LOADING | WRITEBACK | DIRTY | ORPHAN | FREE;

/// A frame's state word.
#[doc(alias = "page_flags")]
pub(crate) struct State(AtomicU64);

/// How an attempt to latch a page ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Latch {
    /// Held.
    Held,
    /// Not now: latched or being filled. The word as it was.
    Busy(u64),
    /// No page here: not in the index.
    Gone,
    /// The holder count is full.
    Full,
}

/// How a task let go of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Released {
    /// Somebody sleeps on this frame and its condition may now be true.
    pub wake: bool,
    /// The caller was the last one out of an orphan, holds EXCL on it now, and must free it (FRAME-3).
    pub free: bool,
}

/// Why a pin was refused.
#[cold]
fn refused(s: u64) -> Latch {
    if s & HASHED == 0 {
        Latch::Gone
    } else if s & (UPTODATE | EXCL | EXCL_WAIT) != UPTODATE {
        Latch::Busy(s)
    } else {
        Latch::Full
    }
}

impl State {
    pub(crate) fn new(word: u64) -> State {
        State(AtomicU64::new(word))
    }

    /// A look, for hints and reports.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        // Relaxed: the caller confirms by a compare-and-swap, or only reports.
        self.0.load(Ordering::Relaxed)
    }

    /// A look after which the page's bytes or the outcome of its I/O are used.
    #[inline(always)]
    pub(crate) fn load(&self) -> u64 {
        // Acquire: pairs with the Release of the transition that is seen.
        self.0.load(Ordering::Acquire)
    }

    /// Pins the page for reading and tells the word as it was. The caller compares the key afterwards. `QUIET`: leaves no
    /// reference, and ignores exclusive waiters.
    #[inline(always)]
    pub(crate) fn pin<const QUIET: bool>(&self) -> Result<u64, Latch> {
        let waiters = if QUIET { 0 } else { EXCL_WAIT };
        let mut s = self.peek();
        loop {
            if s & (HASHED | UPTODATE | EXCL | waiters | FULL) != HASHED | UPTODATE {
                return Err(refused(s));
            }
            let mut n = s + 1;
            if !QUIET {
                // The first reference sets REF1, the second REF2.
                n |= REF1 | ((s & REF1) << 1);
            }
            // Acquire: the bytes written before the page became up to date, and its key.
            match self
                .0
                .compare_exchange_weak(s, n, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Ok(s),
                Err(now) => s = now,
            }
        }
    }

    /// Pins the page for reading. The caller compares the key afterwards.
    pub(crate) fn try_shared(&self) -> Latch {
        self.pin::<false>().map_or_else(|why| why, |_| Latch::Held)
    }

    /// As `try_shared` for the flusher and other internal readers: leaves no reference, ignores exclusive waiters.
    pub(crate) fn try_shared_quiet(&self) -> Latch {
        self.pin::<true>().map_or_else(|why| why, |_| Latch::Held)
    }

    /// Latches the page for writing: no holder, and none to come until it is let go.
    pub(crate) fn try_excl(&self) -> Latch {
        let mut s = self.peek();
        loop {
            if s & HASHED == 0 {
                return Latch::Gone;
            }
            if s & (HOLDERS | EXCL | LOADING) != 0 || s & UPTODATE == 0 {
                return Latch::Busy(s);
            }
            let n = (s | EXCL | REF1 | ((s & REF1) << 1)) & !EXCL_WAIT;
            // Acquire: pairs with the last holder's Release.
            match self
                .0
                .compare_exchange_weak(s, n, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Latch::Held,
                Err(now) => s = now,
            }
        }
    }

    /// Drops a shared pin. True when somebody waits or the page is an orphan: then `release` looks closer.
    #[inline(always)]
    pub(crate) fn drop_shared(&self) -> bool {
        // Release: our reads happen before the next writer's.
        let old = self.0.fetch_sub(1, Ordering::Release);
        debug_assert!(
            old & HOLDERS != 0,
            "FRAME-2: dropping a pin that nobody holds"
        );
        old & (WAITERS | ORPHAN) != 0
    }

    /// Clears `flags` and sets `set`, as the last act of an owner (EXCL, I/O or isolation), and says what follows.
    pub(crate) fn release(&self, clear: u64, set: u64) -> Released {
        // Release: what the owner wrote is visible to the next; Acquire for the case that we become the one who frees.
        let mut s = self.peek();
        loop {
            let mut n = (s & !clear) | set;
            let free = n & ORPHAN != 0 && n & BUSY == 0;
            if free {
                n |= EXCL;
            }
            match self
                .0
                .compare_exchange_weak(s, n, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => {
                    return Released {
                        wake: n & WAITERS != 0,
                        free,
                    };
                }
                Err(now) => s = now,
            }
        }
    }

    /// Ends a fill: the page is up to date and the caller holds it shared, in one step. An orphan is not pinned: the page
    /// was truncated while it was read.
    pub(crate) fn end_fill(&self) -> (Released, bool) {
        let mut s = self.peek();
        loop {
            let orphan = s & ORPHAN != 0;
            let mut n = s & !LOADING;
            if !orphan {
                n = (n | UPTODATE) + 1;
            }
            let free = orphan && n & BUSY == 0;
            if free {
                n |= EXCL;
            }
            // AcqRel: publishes the bytes; Acquire for the case that we become the one who frees.
            match self
                .0
                .compare_exchange_weak(s, n, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => {
                    let wake = n & WAITERS != 0;
                    return (Released { wake, free }, !orphan);
                }
                Err(now) => s = now,
            }
        }
    }

    /// Claims an idle page for reclaim: EXCL with no holder, not dirty, no I/O. False when it is in use.
    pub(crate) fn try_freeze(&self) -> bool {
        let s = self.peek();
        if s & UNRECLAIMABLE != 0 || s & (HASHED | UPTODATE) != HASHED | UPTODATE {
            return false;
        }
        // Acquire: the last holder's reads are over before the frame is reused. One try: a page that changes is in use.
        self.0
            .compare_exchange(s, s | EXCL, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Claims an idle page, clean or dirty, to move it to another frame: EXCL with no holder, no I/O, on its list. Not a
    /// reference.
    pub(crate) fn try_isolate(&self) -> bool {
        let s = self.peek();
        let in_use = (UNRECLAIMABLE & !DIRTY) | ISOLATED | SUPERSEDED | BLOCK;
        if s & in_use != 0 || s & (HASHED | UPTODATE | LRU) != HASHED | UPTODATE | LRU {
            return false;
        }
        // Acquire: the last holder's writes are over before the bytes are copied. One try: a page that changes is in use.
        self.0
            .compare_exchange(s, s | EXCL, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Sets flags; returns the word before. Any ordering that matters is given by the owner's later `release`.
    pub(crate) fn set(&self, flags: u64) -> u64 {
        // AcqRel: a flag such as WAITERS is set to be seen by the next transition, whose outcome we then look at.
        self.0.fetch_or(flags, Ordering::AcqRel)
    }

    /// Sets flags if the frame still has the life of the word `seen`; returns the word before, which tells.
    pub(crate) fn set_in_life(&self, seen: u64, flags: u64) -> u64 {
        let mut s = self.peek();
        while (s ^ seen) & VERSION == 0 {
            // AcqRel: as in `set`.
            match self
                .0
                .compare_exchange_weak(s, s | flags, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return s,
                Err(now) => s = now,
            }
        }
        s
    }

    /// Clears flags; returns the word before.
    pub(crate) fn clear(&self, flags: u64) -> u64 {
        // AcqRel: as in `set`.
        self.0.fetch_and(!flags, Ordering::AcqRel)
    }

    /// Begins a new life of the frame with `flags`; the version counts lives. The caller owns the frame alone.
    pub(crate) fn reset(&self, flags: u64) {
        let s = self.peek();
        let version = (s & VERSION).wrapping_add(1 << VERSION_SHIFT) & VERSION;
        // Release: the key and the bytes are visible to whoever finds the frame in its new life. An exchange and not a
        // store: a late waiter may change the word at the same time, and all changes are one total order.
        self.0.swap(version | flags, Ordering::AcqRel);
    }

    /// Takes the references seen since the last look: 0, 1 or 2.
    pub(crate) fn take_references(&self) -> u32 {
        if self.peek() & (REF1 | REF2) == 0 {
            return 0;
        }
        // Relaxed: a hint about use; orders nothing.
        let old = self.0.fetch_and(!(REF1 | REF2), Ordering::Relaxed);
        u32::from(old & REF1 != 0) + u32::from(old & REF2 != 0)
    }
}

const _: () = assert!(REF2 == REF1 << 1);
const _: () = assert!(BLOCK < 1 << VERSION_SHIFT);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_page_out_of_the_index_is_gone_and_one_being_filled_is_busy() {
        let s = State::new(0);
        assert_eq!(s.try_shared(), Latch::Gone);
        assert_eq!(s.try_excl(), Latch::Gone);
        s.reset(HASHED | LOADING);
        assert!(matches!(s.try_shared(), Latch::Busy(_)));
        assert!(matches!(s.try_excl(), Latch::Busy(_)));
        s.release(LOADING, UPTODATE);
        assert_eq!(s.try_shared(), Latch::Held);
        assert!(matches!(s.try_excl(), Latch::Busy(_)));
        assert!(!s.drop_shared());
        assert_eq!(s.try_excl(), Latch::Held);
        assert!(matches!(s.try_shared(), Latch::Busy(_)));
    }

    #[test]
    fn references_count_to_two() {
        let s = State::new(HASHED | UPTODATE);
        assert_eq!(s.take_references(), 0);
        s.try_shared();
        assert_eq!(s.take_references(), 1);
        for _ in 0..3 {
            s.try_shared();
        }
        assert_eq!(s.take_references(), 2);
        assert_eq!(s.take_references(), 0);
    }

    #[test]
    fn an_exclusive_waiter_stops_new_holders_but_not_the_flusher() {
        let s = State::new(HASHED | UPTODATE | EXCL_WAIT);
        assert!(matches!(s.try_shared(), Latch::Busy(_)));
        assert_eq!(s.try_shared_quiet(), Latch::Held);
    }

    #[test]
    fn the_last_one_out_of_an_orphan_frees_it() {
        let s = State::new(HASHED | UPTODATE | WRITEBACK);
        assert_eq!(s.try_shared(), Latch::Held);
        assert!(!s.release(HASHED, ORPHAN).free);
        assert!(s.drop_shared());
        assert!(!s.release(0, 0).free, "FRAME-3: still under writeback");
        assert!(s.release(WRITEBACK, 0).free);
        assert!(!s.release(0, 0).free, "FRAME-3: one winner only");
    }

    #[test]
    fn only_an_idle_clean_page_freezes() {
        for busy in [DIRTY, WRITEBACK, LOADING, EXCL, 1, ORPHAN, EXCL_WAIT] {
            assert!(
                !State::new(HASHED | UPTODATE | busy).try_freeze(),
                "{busy:#x}"
            );
        }
        assert!(State::new(HASHED | UPTODATE | LRU | ACTIVE | REF1).try_freeze());
    }

    #[test]
    fn only_an_idle_page_moves_and_a_dirty_one_does() {
        let idle = HASHED | UPTODATE | LRU;
        for busy in [
            WRITEBACK, LOADING, EXCL, 1, ORPHAN, EXCL_WAIT, ISOLATED, SUPERSEDED, BLOCK,
        ] {
            assert!(!State::new(idle | busy).try_isolate(), "{busy:#x}");
        }
        assert!(!State::new(HASHED | UPTODATE).try_isolate(), "on no list");
        for fine in [0, DIRTY, DIRTY | ERROR, ACTIVE | REF1] {
            let s = State::new(idle | fine);
            assert!(s.try_isolate());
            assert_eq!(s.peek(), idle | fine | EXCL, "no reference is left");
        }
    }

    #[test]
    fn holders_do_not_overflow() {
        let s = State::new(HASHED | UPTODATE | u64::from(HOLDERS_MAX));
        assert_eq!(s.try_shared(), Latch::Full);
        assert_eq!(s.try_shared_quiet(), Latch::Full);
    }
}
