//! Deferral: after a compaction that failed the next ones are skipped, twice as many after each failure, up to 64.
//!
//! **Kernel.** compaction.c: `defer_compaction`, `compaction_deferred`, `compaction_defer_reset`.

/// Failures double the skipped attempts so often at most (COMPACT_MAX_DEFER_SHIFT).
const SHIFT_MAX: u32 = 6;

/// When compaction is tried again. Orders below the one that failed are tried at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Deferral {
    considered: u32,
    /// Attempts to skip are 2^shift − 1.
    shift: u32,
    /// The lowest order that failed.
    failed: u32,
}

impl Default for Deferral {
    fn default() -> Deferral {
        Deferral {
            considered: 0,
            shift: 0,
            failed: u32::MAX,
        }
    }
}

impl Deferral {
    /// Shall this attempt be skipped? It counts either way.
    pub(super) fn is_deferred(&mut self, order: u32) -> bool {
        if order < self.failed {
            return false;
        }
        self.considered = (self.considered + 1).min(1 << self.shift);
        self.considered < 1 << self.shift
    }

    pub(super) fn note_failure(&mut self, order: u32) {
        self.considered = 0;
        self.shift = (self.shift + 1).min(SHIFT_MAX);
        self.failed = self.failed.min(order);
    }

    /// A block of 2^`order` frames was made.
    pub(super) fn note_success(&mut self, order: u32) {
        self.considered = 0;
        self.shift = 0;
        if order >= self.failed {
            self.failed = order + 1;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Attempts skipped until the next that is made.
    fn skipped(d: &mut Deferral, order: u32) -> u32 {
        let mut n = 0;
        while d.is_deferred(order) {
            n += 1;
        }
        n
    }

    #[test]
    fn failures_double_the_skipped_attempts_up_to_64() {
        let mut d = Deferral::default();
        assert_eq!(skipped(&mut d, 4), 0);
        for want in [1, 3, 7, 15, 31, 63, 63] {
            d.note_failure(4);
            assert_eq!(skipped(&mut d, 4), want);
        }
        d.note_success(4);
        assert_eq!(skipped(&mut d, 4), 0);
    }

    #[test]
    fn lower_orders_are_tried_at_once() {
        let mut d = Deferral::default();
        d.note_failure(4);
        assert!(!d.is_deferred(3) && d.is_deferred(9));
        d.note_failure(2);
        assert!(d.is_deferred(3));
        d.note_success(3);
        assert!(!d.is_deferred(3));
    }
}
