//! Reads and writes by a pool of threads, for where io_uring is forbidden.
//!
//! Threads start as load rises and end after 10 s without work. The flusher's requests may take at most
//! `FLUSHER_MAX` of them, so that a reader never waits behind a full queue of background writes.
//!
//! **State.** `state` guards everything; no request runs or completes under it.
//!
//! **Invariants.** POOL-1: while a request is queued, a thread is idle and notified, starting, or running: each looks at
//! the queues before it sleeps.

use super::flight::{Flight, Step};
use super::ring::complete_all;
use super::sys;
use crate::world::threads::{own_thread, thread_builder};
use crate::world::{Clock, tasks};
use highwater_engine::io::Lane;
use highwater_engine::world::{Nanos, Task};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const THREADS_MAX: usize = 32;
const FLUSHER_MAX: usize = 24;
const _: () = assert!(FLUSHER_MAX < THREADS_MAX);
const IDLE: Duration = Duration::from_secs(10);

pub(super) struct Pool {
    inner: Arc<Inner>,
    name: String,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    shared: VecDeque<Flight>,
    flusher: VecDeque<Flight>,
    flusher_running: usize,
    running: usize,
    threads: usize,
    /// Threads that wait for work or have not reached the queues yet.
    idle: usize,
    stop: bool,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn new(name: &str) -> Pool {
        Pool {
            inner: Arc::default(),
            name: format!("io-{name}"),
        }
    }

    pub(super) fn submit(&self, lane: Lane, flights: impl Iterator<Item = Flight>) {
        let mut state = self.inner.state.lock();
        match lane {
            Lane::Flusher => state.flusher.extend(flights),
            Lane::Shared => state.shared.extend(flights),
        }
        let startable = FLUSHER_MAX.saturating_sub(state.flusher_running);
        let wanted = state.shared.len() + state.flusher.len().min(startable);
        for _ in state.idle..wanted {
            if state.stop || state.threads == THREADS_MAX || !self.start(&mut state) {
                break;
            }
        }
        let alone = state.threads == 0;
        drop(state);
        for _ in 0..wanted.min(THREADS_MAX) {
            self.inner.work.notify_one();
        }
        if alone {
            // No thread can be had, or the world has stopped: the submitter works itself.
            loop {
                // The lock is let go before the work.
                let next = self.inner.state.lock().next();
                let Some((lane, flight)) = next else { break };
                self.inner.work_on(lane, flight);
            }
        }
    }

    fn start(&self, state: &mut State) -> bool {
        let inner = self.inner.clone();
        match thread_builder(&self.name).spawn(move || inner.run()) {
            Ok(handle) => {
                state.handles.retain(|h| !h.is_finished());
                state.handles.push(handle);
                state.threads += 1;
                state.idle += 1;
                true
            }
            Err(e) => {
                tracing::warn!(
                    "no further thread for I/O ({e}); {} there are",
                    state.threads
                );
                false
            }
        }
    }

    /// Waits until `until` for what is queued or running, then ends the threads; true when idle.
    pub(super) fn stop(&self, clock: &Clock, until: Nanos) -> bool {
        while self.inner.state.lock().load() > 0 && clock.now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        let mut state = self.inner.state.lock();
        state.stop = true;
        let idle = state.load() == 0;
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        self.inner.work.notify_all();
        let me = std::thread::current().id();
        for handle in handles {
            // A thread that hangs in a device cannot be joined; one's own neither.
            if handle.thread().id() != me && (idle || handle.is_finished()) {
                let _ = handle.join();
            }
        }
        idle
    }
}

impl State {
    fn load(&self) -> usize {
        self.shared.len() + self.flusher.len() + self.running
    }

    /// The next request to work on: readers and syncs before the flusher.
    fn next(&mut self) -> Option<(Lane, Flight)> {
        let next = match self.shared.pop_front() {
            Some(flight) => (Lane::Shared, flight),
            None if self.flusher_running < FLUSHER_MAX => {
                (Lane::Flusher, self.flusher.pop_front()?)
            }
            None => return None,
        };
        self.running += 1;
        self.flusher_running += usize::from(next.0 == Lane::Flusher);
        Some(next)
    }
}

impl Inner {
    fn run(&self) {
        own_thread();
        tasks::task().set_flag(Task::MEMALLOC);
        let mut state = self.state.lock();
        state.idle -= 1;
        loop {
            if let Some((lane, flight)) = state.next() {
                drop(state);
                self.work_on(lane, flight);
                state = self.state.lock();
                continue;
            }
            if state.stop {
                break;
            }
            state.idle += 1;
            let timed_out = self.work.wait_for(&mut state, IDLE).timed_out();
            state.idle -= 1;
            if timed_out && state.shared.is_empty() && state.flusher.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn work_on(&self, lane: Lane, mut flight: Flight) {
        let result = loop {
            let Some(piece) = flight.next_piece() else {
                break Ok(());
            };
            match flight.advance(sys::transfer(&piece, flight.iov())) {
                Step::Again => {}
                Step::Done(result) => break result,
            }
        };
        complete_all(vec![(flight, result)]);
        let mut state = self.state.lock();
        state.running -= 1;
        state.flusher_running -= usize::from(lane == Lane::Flusher);
    }
}
