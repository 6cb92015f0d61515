//! The clock: CLOCK_MONOTONIC since the world began.

use highwater_engine::world::Nanos;
use rustix::time::{ClockId, clock_gettime};

/// Reads CLOCK_MONOTONIC (through the vDSO), counted from [`Clock::new`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: u64,
}

impl Clock {
    /// Starts counting now.
    pub(crate) fn new() -> Clock {
        Clock { base: monotonic() }
    }

    /// Now.
    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        Nanos(monotonic().saturating_sub(self.base))
    }

    /// `at` as an absolute CLOCK_MONOTONIC time.
    pub(crate) fn timespec(&self, at: Nanos) -> libc::timespec {
        let ns = self.base.saturating_add(at.0);
        libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        }
    }
}

#[inline]
fn monotonic() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
