//! The shared lane: one ring for every thread, and a reaper that completes what comes back.
//!
//! The reaper starts with the first request and sleeps in the kernel without the ring's lock, so that submitters never
//! wait for it.
//!
//! **State.** `reaper` guards the thread's handle. `stop` is set once.

use super::flight::Flight;
use super::ring::{Finished, Ring, complete_all};
use crate::world::threads::{own_thread, thread_builder};
use crate::world::{Clock, tasks};
use highwater_engine::sync::{AtomicBool, Ordering};
use highwater_engine::world::{Nanos, Task};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::JoinHandle;

pub(super) struct SharedLane {
    inner: Arc<Inner>,
    name: String,
    reaper: Mutex<Option<JoinHandle<()>>>,
    started: AtomicBool,
}

struct Inner {
    ring: Ring,
    stop: AtomicBool,
}

impl SharedLane {
    pub(super) fn new(name: &str) -> std::io::Result<SharedLane> {
        Ok(SharedLane {
            inner: Arc::new(Inner {
                ring: Ring::shared()?,
                stop: AtomicBool::new(false),
            }),
            name: format!("reap-{name}"),
            reaper: Mutex::new(None),
            started: AtomicBool::new(false),
        })
    }

    pub(super) fn submit(&self, flights: impl Iterator<Item = Flight>) {
        self.start();
        self.inner.ring.submit(flights);
        // Without a reaper (no thread to be had, or the world has stopped) the submitter waits for its own requests.
        // Acquire: pairs with the Release in `start` and `stop`.
        if !self.started.load(Ordering::Acquire) {
            while self.inner.ring.load() > 0 {
                self.inner.ring.wait_shared(Nanos::from_millis(10));
                self.reap_now();
            }
        }
    }

    /// Completes what is there, unless the reaper is at it.
    pub(super) fn reap_now(&self) -> usize {
        let mut finished = Finished::new();
        self.inner.ring.try_take(&mut finished);
        let n = finished.len();
        complete_all(finished);
        n
    }

    fn start(&self) {
        // Acquire: pairs with the Release below.
        if self.started.load(Ordering::Acquire) {
            return;
        }
        let mut reaper = self.reaper.lock();
        // Relaxed: both are changed under the lock.
        if self.started.load(Ordering::Relaxed) || self.inner.stop.load(Ordering::Relaxed) {
            return;
        }
        let inner = self.inner.clone();
        match thread_builder(&self.name).spawn(move || inner.run()) {
            Ok(handle) => {
                *reaper = Some(handle);
                // Release: who sees it sees the reaper's handle stored.
                self.started.store(true, Ordering::Release);
            }
            Err(e) => tracing::warn!("no thread {} ({e}): submitters wait instead", self.name),
        }
    }

    /// Waits until `until` for what is in flight, then ends the reaper; true when idle.
    pub(super) fn stop(&self, clock: &Clock, until: Nanos) -> bool {
        while self.inner.ring.load() > 0 && clock.now() < until {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let mut reaper = self.reaper.lock();
        // Release: pairs with the Acquire in `run`.
        self.inner.stop.store(true, Ordering::Release);
        self.started.store(false, Ordering::Release);
        let Some(handle) = reaper.take() else {
            return self.inner.ring.load() == 0;
        };
        drop(reaper);
        self.inner.ring.nudge();
        // The last reference may go away in a completion, on the reaper itself.
        if handle.thread().id() != std::thread::current().id() {
            let _ = handle.join();
        }
        // What a thread submitted while it still saw the reaper.
        while self.inner.ring.load() > 0 && clock.now() < until {
            self.inner.ring.wait_shared(Nanos::from_millis(1));
            self.reap_now();
        }
        self.inner.ring.load() == 0
    }
}

impl Inner {
    fn run(&self) {
        own_thread();
        tasks::task().set_flag(Task::MEMALLOC);
        loop {
            let mut finished = Finished::new();
            self.ring.take(&mut finished);
            if finished.is_empty() {
                // After `take`, which may have consumed the nudge. Acquire: pairs with the Release in `stop`.
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                let timeout = if self.ring.stuck() {
                    Nanos::from_millis(1)
                } else {
                    Nanos::from_secs(10)
                };
                self.ring.wait_shared(timeout);
            } else {
                complete_all(finished);
            }
        }
    }
}
