//! A lock that is held across sleeps: shared or exclusive, waits bounded, exclusive preferred.
//!
//! **Kernel.** rw_semaphore; the invalidate_lock of an address_space.

use crate::sync::{AtomicU64, Ordering};
use crate::trace::VmStat;
use crate::wait::{Channel, WaitTable, Waited};
use crate::world::{Nanos, World};

/// Held exclusively.
const EXCLUSIVE: u64 = 1 << 63;
/// One who waits for it exclusively: no new shared holders.
const WAITING: u64 = 1 << 32;
const WAITING_MASK: u64 = EXCLUSIVE - WAITING;

/// Word: exclusive bit · exclusive waiters · shared holders.
pub(crate) struct SleepLock {
    word: AtomicU64,
    channel: Channel,
}

impl SleepLock {
    pub(crate) fn new(channel: Channel) -> SleepLock {
        SleepLock {
            word: AtomicU64::new(0),
            channel,
        }
    }

    /// Takes the lock shared, if nobody holds it or waits for it exclusively.
    #[inline]
    pub(crate) fn try_shared(&self) -> bool {
        // Relaxed look, confirmed by the exchange.
        let mut w = self.word.load(Ordering::Relaxed);
        while w & (EXCLUSIVE | WAITING_MASK) == 0 {
            // Acquire: sees what the last exclusive holder did.
            match self
                .word
                .compare_exchange_weak(w, w + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => w = now,
            }
        }
        false
    }

    /// Does anybody hold it shared? Exact to a caller that keeps new holders out by other means.
    pub(crate) fn is_held_shared(&self) -> bool {
        // Acquire: a hold that was taken before what the caller has seen is seen.
        self.word.load(Ordering::Acquire) & (WAITING - 1) != 0
    }

    /// Lets a shared hold go.
    #[inline]
    pub(crate) fn drop_shared<W: World>(&self, world: &W, waits: &WaitTable) {
        // Release: our changes are visible to the next exclusive holder.
        let old = self.word.fetch_sub(1, Ordering::Release);
        if old & WAITING_MASK != 0 && old & (WAITING - 1) == 1 {
            waits.wake(world, self.channel);
        }
    }

    /// As `drop_shared`, wrong: see [`crate::plant`].
    #[cfg(feature = "plant")]
    pub(crate) fn drop_shared_late<W: World>(&self, world: &W, waits: &WaitTable) {
        // Relaxed: as wrong as the rest.
        let awaited = self.word.load(Ordering::Relaxed) & WAITING_MASK != 0;
        world.charge(crate::world::Work::Hit, 1);
        self.word.fetch_sub(1, Ordering::Release);
        if awaited {
            waits.wake(world, self.channel);
        }
    }

    /// Sleeps until a shared hold is likely to succeed.
    pub(crate) fn wait_shared<W: World>(
        &self,
        world: &W,
        stat: &VmStat,
        waits: &WaitTable,
        until: Nanos,
    ) -> Waited {
        waits.wait(world, stat, self.channel, until, || {
            // Acquire: as in `try_shared`.
            self.word.load(Ordering::Acquire) & (EXCLUSIVE | WAITING_MASK) == 0
        })
    }

    /// Takes the lock exclusively, waiting until `until`.
    pub(crate) fn lock<W: World>(
        &self,
        world: &W,
        stat: &VmStat,
        waits: &WaitTable,
        until: Nanos,
    ) -> Waited {
        // Relaxed: announces us; the exchange below orders.
        self.word.fetch_add(WAITING, Ordering::Relaxed);
        let waited = waits.wait(world, stat, self.channel, until, || {
            let mut w = self.word.load(Ordering::Relaxed);
            while w & EXCLUSIVE == 0 && w & (WAITING - 1) == 0 {
                // Acquire: sees what the holders before us did.
                match self.word.compare_exchange_weak(
                    w,
                    (w - WAITING) | EXCLUSIVE,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => return true,
                    Err(now) => w = now,
                }
            }
            false
        });
        if waited == Waited::TimedOut {
            // Relaxed: takes back the announcement; those we kept out are woken.
            self.word.fetch_sub(WAITING, Ordering::Relaxed);
            waits.wake(world, self.channel);
        }
        waited
    }

    /// Lets an exclusive hold go.
    pub(crate) fn unlock<W: World>(&self, world: &W, waits: &WaitTable) {
        // Release: our changes are visible to the next holder.
        let old = self.word.fetch_and(!EXCLUSIVE, Ordering::Release);
        debug_assert!(old & EXCLUSIVE != 0, "unlocking what nobody holds");
        waits.wake(world, self.channel);
    }
}
