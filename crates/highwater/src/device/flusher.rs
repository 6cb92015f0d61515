//! The flusher's lane: a ring of the flusher alone, made by the flusher's first call.
//!
//! Submission and reaping happen on one thread, so completions wake nobody and io_uring needs no locking of its own. The
//! flusher sleeps in the ring; an unpark writes to an eventfd that the ring polls.
//!
//! **State.** `lane` guards which thread owns the ring, and is held for a moment only. A thread that is not the owner
//! takes the lane over when it is idle, and is sent to the shared lane otherwise.
//!
//! **Invariants.**
//! - FLUSHER-1: only the owner enters the ring (SINGLE_ISSUER).
//! - FLUSHER-2: a thread that ends drains its rings first: the kernel hands completions of such a ring to its owner only.

use super::ring::{Finished, Ring, complete_all};
use crate::world::{Clock, tasks};
use highwater_engine::world::Nanos;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

const DRAIN_MAX: Duration = Duration::from_secs(5);

thread_local! {
    static RINGS: RefCell<Rings> = const { RefCell::new(Rings(Vec::new())) };
}

/// The rings that a thread owns.
struct Rings(Vec<Weak<Ring>>);

impl Drop for Rings {
    fn drop(&mut self) {
        // FLUSHER-2.
        let start = Instant::now();
        for ring in self.0.iter().filter_map(Weak::upgrade) {
            while ring.load() > 0 && start.elapsed() < DRAIN_MAX {
                ring.wait_owner_briefly();
                let mut finished = Finished::new();
                ring.take(&mut finished);
                complete_all(finished);
            }
        }
    }
}

#[derive(Default)]
pub(super) struct FlusherLane {
    lane: Mutex<Option<Owned>>,
}

#[derive(Clone)]
struct Owned {
    owner: u64,
    ring: Arc<Ring>,
    wake: Arc<OwnedFd>,
}

impl FlusherLane {
    /// The calling thread's ring. `None`: another thread has the lane, or the kernel gives no ring.
    pub(super) fn claim(&self) -> Option<Arc<Ring>> {
        let me = tasks::current().serial();
        let mut lane = self.lane.lock();
        if let Some(owned) = lane.as_ref() {
            if owned.owner == me {
                return Some(owned.ring.clone());
            }
            if owned.ring.load() > 0 {
                return None;
            }
        }
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        let ring = Ring::owned()
            .inspect_err(|e| tracing::warn!("no ring for the flusher ({e}): it shares one"))
            .ok()?;
        let ring = Arc::new(ring);
        let kept = RINGS.try_with(|r| {
            let rings = &mut r.borrow_mut().0;
            rings.retain(|ring| ring.strong_count() > 0);
            rings.push(Arc::downgrade(&ring));
        });
        if kept.is_err() {
            // A thread past its destructors could not drain it.
            return None;
        }
        *lane = Some(Owned {
            owner: me,
            ring: ring.clone(),
            wake: Arc::new(wake),
        });
        Some(ring)
    }

    fn mine(&self) -> Option<Owned> {
        let me = tasks::current().serial();
        self.lane.lock().as_ref().filter(|o| o.owner == me).cloned()
    }

    /// See [`highwater_engine::world::Queue::reap`].
    pub(super) fn reap(&self, clock: &Clock, until: Nanos) -> usize {
        let slot = tasks::current();
        let Some(owned) = self.mine().filter(|o| o.ring.load() > 0) else {
            // Nothing can come back: this is a park.
            if clock.now() < until {
                slot.park(clock, until);
            }
            return 0;
        };
        let mut finished = Finished::new();
        owned.ring.take(&mut finished);
        if finished.is_empty() {
            let now = clock.now();
            if now < until && slot.begin_ring_wait(&owned.wake) {
                owned
                    .ring
                    .wait_owner(owned.wake.as_raw_fd(), until.since(now));
                slot.end_ring_wait();
            } else {
                owned.ring.run_deferred();
            }
            owned.ring.take(&mut finished);
            if finished.is_empty() {
                // Woken by an unpark, perhaps one that was meant for an earlier wait. The poll is level-triggered:
                // empty the eventfd, or each later wait ends at once.
                let _ = rustix::io::read(&*owned.wake, &mut [0u8; 8]);
            }
        }
        let n = finished.len();
        complete_all(finished);
        n
    }

    /// Waits until `until` for what is in flight. On another thread than the owner, for the owner to take it (FLUSHER-2).
    /// True when idle.
    pub(super) fn drain(&self, clock: &Clock, until: Nanos) -> bool {
        let Some(owned) = self.lane.lock().clone() else {
            return true;
        };
        loop {
            let mut finished = Finished::new();
            if tasks::current().serial() == owned.owner {
                owned.ring.run_deferred();
            }
            owned.ring.take(&mut finished);
            complete_all(finished);
            if owned.ring.load() == 0 {
                *self.lane.lock() = None;
                return true;
            }
            if clock.now() >= until {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}
