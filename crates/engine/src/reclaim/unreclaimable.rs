//! When the kernel gave up: the lists scanned six times over without a page freed.
//!
//! The engine itself waits for as long as anybody makes progress, and for `alloc_timeout` beyond that. What is kept here
//! only counts how often the rule of the kernel would have ended in its OOM killer, so that one can ask of a policy whether
//! it brings false ones.
//!
//! **State.** Two atomics. They are a figure for a counter, not a decision: two reclaimers that race may lose a batch.
//! **Kernel.** `zone->pages_scanned`, `zone_reclaimable` and `all_unreclaimable`, 2.6.35 to 4.6.

use crate::sync::{Ordering, hint::AtomicU64};

/// The lists count as unreclaimable once so many times their length was scanned in vain.
const TIMES: u64 = 6;

/// Pages scanned since one was freed.
#[derive(Default)]
pub(crate) struct Unreclaimable {
    /// `pgfree` when the count began.
    freed: AtomicU64,
    scanned: AtomicU64,
}

impl Unreclaimable {
    /// `scanned` more pages were looked at, and `freed` have been freed in the cache's life.
    pub fn note(&self, scanned: u64, freed: u64) {
        // Relaxed: see State.
        if self.freed.load(Ordering::Relaxed) == freed {
            self.scanned.fetch_add(scanned, Ordering::Relaxed);
        } else {
            self.freed.store(freed, Ordering::Relaxed);
            self.scanned.store(scanned, Ordering::Relaxed);
        }
    }

    /// True when lists of `reclaimable` pages were scanned in vain for long enough.
    pub fn reached(&self, reclaimable: u64) -> bool {
        // Relaxed: see State.
        self.scanned.load(Ordering::Relaxed) >= reclaimable * TIMES
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn six_times_over_without_a_page_freed() {
        let u = Unreclaimable::default();
        u.note(300, 1);
        u.note(299, 1);
        assert!(!u.reached(100));
        u.note(1, 1);
        assert!(u.reached(100));
        // A page freed begins the count anew.
        u.note(32, 2);
        assert!(!u.reached(100));
        assert!(u.reached(5));
    }
}
