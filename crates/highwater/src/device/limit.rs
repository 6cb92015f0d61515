//! A slow device: a wrapper that lets an inner device do so many bytes and requests a second.
//!
//! Reads and writes have a clock each, with the same limits, as under `blkio.throttle` and `io.max`, so that the same work
//! on Linux meets the same device. A clock serves one request at a time: a request takes max(bytes / B, 1 / I) of it, and
//! is handed to the inner device at the end of its time.
//!
//! **State.** A direction's `state` guards its queue; the clock is its thread's own.
//!
//! **Context.** The limiter's threads submit to the inner device's shared lane, so completions run on the inner queue's
//! threads, and `reap` parks. `read_now` and `write_now` wait for their turn on the calling thread.
//!
//! **Kernel.** blk-throttle.
//!
//! **Tests.** `tests/limit.rs`: both limits within 10 %.

use crate::world::threads::{own_thread, thread_builder};
use crate::world::{Clock, ForkMark, tasks};
use highwater_engine::IoError;
use highwater_engine::io::{IoBuf, IoOp, Lane, Request};
use highwater_engine::sync::{AtomicU64, Ordering};
use highwater_engine::world::{Device, Nanos, Queue, QueueId, Task, TaskId};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

/// How far the clock may lie behind while requests wait: a sleep that ends late is made up for. Idle time never is.
const BEHIND_MAX: Nanos = Nanos::from_millis(50);

/// The queue of a [`RateLimited`] device: two clocks for all devices that share it. Made by
/// [`crate::OsWorld::limited`]; [`RateLimited`] has an example.
pub struct Limiter {
    id: QueueId,
    clock: Clock,
    inner: Arc<dyn Queue>,
    bytes_per_s: u64,
    iops: u64,
    reads: Direction,
    writes: Direction,
    fork: ForkMark,
}

/// One direction's queue and the thread that keeps its clock.
#[derive(Default)]
struct Direction {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    stop: bool,
    /// The thread's task, while it waits for a job's time.
    sleeper: Option<TaskId>,
}

struct Job {
    bytes: u64,
    what: What,
}

enum What {
    Submit(Arc<dyn Device>, Request),
    /// A caller of `read_now` or `write_now`, parked until its turn has come.
    Turn(Arc<AtomicU64>, TaskId),
}

impl Limiter {
    /// A limit of `bytes_per_s` and `iops` before the device behind `inner`. Zero: no limit of that kind.
    pub(crate) fn new(
        clock: Clock,
        inner: Arc<dyn Queue>,
        bytes_per_s: u64,
        iops: u64,
    ) -> Arc<Limiter> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let limiter = Limiter {
            // A queue of its own. Relaxed: a number nobody else has. `st_dev` leaves the top bit alone.
            id: QueueId(1 << 63 | NEXT.fetch_add(1, Ordering::Relaxed)),
            clock,
            inner,
            bytes_per_s,
            iops,
            reads: Direction::default(),
            writes: Direction::default(),
            fork: ForkMark::new(),
        };
        Arc::new(limiter)
    }

    fn direction(&self, op: IoOp) -> &Direction {
        match op {
            IoOp::Read => &self.reads,
            IoOp::Write => &self.writes,
        }
    }

    fn push(&self, op: IoOp, job: Job) {
        self.start(op);
        let shared = &self.direction(op).shared;
        let mut state = shared.state.lock();
        state.jobs.push_back(job);
        let stopped = state.stop;
        drop(state);
        if stopped {
            // No thread: nothing is limited any more.
            shared.serve_all();
        } else {
            shared.work.notify_one();
        }
    }

    /// Waits for a turn of `bytes` on the calling thread.
    fn take_turn(&self, op: IoOp, bytes: u64) {
        let task = tasks::current();
        let turn = Arc::new(AtomicU64::new(0));
        let what = What::Turn(turn.clone(), task.id());
        self.push(op, Job { bytes, what });
        let mut unparked = false;
        // Acquire: pairs with the Release of `serve`; the device's time before is over.
        while turn.load(Ordering::Acquire) == 0 {
            let before = self.clock.now();
            let until = before.plus(Nanos::from_secs(1));
            task.park(&self.clock, until);
            // Acquire: as above.
            unparked |= turn.load(Ordering::Acquire) == 0 && self.clock.now() < until;
            if self.direction(op).stopped() {
                break;
            }
        }
        if unparked {
            // An unpark meant for the caller was swallowed here; it finds it again.
            tasks::unpark(task.id());
        }
    }

    fn start(&self, op: IoOp) {
        let direction = self.direction(op);
        let mut thread = direction.thread.lock();
        if thread.is_some() || direction.stopped() {
            return;
        }
        let (shared, clock) = (direction.shared.clone(), self.clock);
        let (bytes_per_s, iops) = (self.bytes_per_s, self.iops);
        let name = match op {
            IoOp::Read => format!("slow-r-{}", self.inner.name()),
            IoOp::Write => format!("slow-w-{}", self.inner.name()),
        };
        let body = move || shared.run(&clock, |bytes| cost(bytes, bytes_per_s, iops));
        match thread_builder(&name).spawn(body) {
            Ok(handle) => *thread = Some(handle),
            Err(e) => {
                tracing::error!("no thread {name} ({e}): the rate is not limited");
                direction.shared.state.lock().stop = true;
            }
        }
    }

    /// Ends the limiter: what waits is submitted at once.
    pub(crate) fn stop(&self) {
        if !self.fork.forked() {
            self.reads.stop();
            self.writes.stop();
        }
    }
}

impl Direction {
    fn stopped(&self) -> bool {
        self.shared.state.lock().stop
    }

    fn stop(&self) {
        let sleeper = {
            let mut state = self.shared.state.lock();
            state.stop = true;
            state.sleeper
        };
        self.shared.work.notify_all();
        // Its job's time may be far away.
        if let Some(task) = sleeper {
            tasks::unpark(task);
        }
        let handle = self.thread.lock().take();
        if let Some(handle) = handle.filter(|h| h.thread().id() != std::thread::current().id()) {
            let _ = handle.join();
        }
        self.shared.serve_all();
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.stop();
    }
}

fn cost(bytes: u64, bytes_per_s: u64, iops: u64) -> Nanos {
    let by_bytes = (u128::from(bytes) * 1_000_000_000)
        .checked_div(u128::from(bytes_per_s))
        .map_or(0, |n| n.min(u128::from(u64::MAX)) as u64);
    let by_count = 1_000_000_000u64.checked_div(iops).unwrap_or(0);
    Nanos(by_bytes.max(by_count))
}

impl Shared {
    fn run(&self, clock: &Clock, cost: impl Fn(u64) -> Nanos) {
        own_thread();
        let slot = tasks::current();
        tasks::task().set_flag(Task::MEMALLOC);
        let mut free_at = Nanos::ZERO;
        let mut state = self.state.lock();
        while !state.stop {
            let Some(job) = state.jobs.pop_front() else {
                self.work.wait(&mut state);
                free_at = free_at.max(clock.now());
                continue;
            };
            state.sleeper = Some(slot.id());
            drop(state);
            let now = clock.now();
            free_at = free_at
                .max(Nanos(now.0.saturating_sub(BEHIND_MAX.0)))
                .plus(cost(job.bytes));
            while clock.now() < free_at && !self.state.lock().stop {
                slot.park(clock, free_at);
            }
            job.serve();
            state = self.state.lock();
            state.sleeper = None;
        }
        drop(state);
        self.serve_all();
    }

    fn serve_all(&self) {
        loop {
            let next = self.state.lock().jobs.pop_front();
            let Some(job) = next else { return };
            job.serve();
        }
    }
}

impl Job {
    fn serve(self) {
        match self.what {
            What::Submit(device, request) => device.submit(Lane::Shared, &mut vec![request]),
            What::Turn(turn, task) => {
                // Release: pairs with the Acquire of `take_turn`.
                turn.store(1, Ordering::Release);
                tasks::unpark(task);
            }
        }
    }
}

impl Queue for Limiter {
    fn id(&self) -> QueueId {
        self.id
    }

    fn name(&self) -> String {
        format!("{}-slow", self.inner.name())
    }

    fn reap(&self, _lane: Lane, until: Nanos) -> usize {
        // Nothing is ever submitted to the inner flusher's lane.
        self.inner.reap(Lane::Shared, until)
    }

    fn depth(&self) -> usize {
        self.inner.depth().min(32)
    }

    fn segments_max(&self) -> usize {
        self.inner.segments_max()
    }

    /// At most what takes 20 ms.
    fn request_bytes_max(&self) -> usize {
        let most = self.inner.request_bytes_max();
        match self.bytes_per_s {
            0 => most,
            b => most
                .min(((b / 50) as usize).next_power_of_two() / 2)
                .max(64 << 10),
        }
    }
}

/// A device behind a [`Limiter`].
///
/// ```
/// use highwater::{DirectIo, FileDevice, IoEngine, OsWorld, RateLimited};
/// use highwater::engine::world::Device;
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
/// let world = OsWorld::new(IoEngine::Auto)?;
/// let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
/// let file = FileDevice::new(&world, &path, file.into(), true, DirectIo::Auto)?;
/// let limiter = world.limited(&file, 50_000_000, 5_000);
/// let slow = RateLimited::new(file, limiter);
/// slow.write_now(0, &[1; 4096]).unwrap();
/// # assert!(world.shutdown());
/// # Ok::<(), highwater::Error>(())
/// ```
pub struct RateLimited<D> {
    inner: Arc<D>,
    limiter: Arc<Limiter>,
}

impl<D: Device> RateLimited<D> {
    /// Puts `limiter` before `inner`.
    pub fn new(inner: D, limiter: Arc<Limiter>) -> RateLimited<D> {
        RateLimited {
            inner: Arc::new(inner),
            limiter,
        }
    }
}

impl<D: Device> Device for RateLimited<D> {
    fn queue(&self) -> Arc<dyn Queue> {
        self.limiter.clone()
    }

    fn submit(&self, _lane: Lane, batch: &mut Vec<Request>) {
        for request in batch.drain(..) {
            let op = request.op;
            let bytes = request.len() as u64;
            let what = What::Submit(self.inner.clone(), request);
            self.limiter.push(op, Job { bytes, what });
        }
    }

    fn read_now(&self, offset: u64, bufs: &[IoBuf]) -> Result<(), IoError> {
        let bytes = bufs.iter().map(|b| b.len as u64).sum();
        self.limiter.take_turn(IoOp::Read, bytes);
        self.inner.read_now(offset, bufs)
    }

    fn write_now(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.limiter.take_turn(IoOp::Write, buf.len() as u64);
        self.inner.write_now(offset, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.inner.flush()
    }

    fn flush_all(&self) -> Result<(), IoError> {
        self.inner.flush_all()
    }

    fn len(&self) -> Result<u64, IoError> {
        self.inner.len()
    }

    fn truncate(&self, len: u64) -> Result<(), IoError> {
        self.inner.truncate(len)
    }

    fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.inner.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.inner.write_zeroes(offset, len)
    }

    fn extents(&self, offset: u64, len: u64) -> Result<Vec<(u64, u64)>, IoError> {
        self.inner.extents(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_both_costs() {
        assert_eq!(cost(4096, 50_000_000, 5_000), Nanos::from_micros(200));
        assert_eq!(cost(1_000_000, 50_000_000, 5_000), Nanos::from_millis(20));
        assert_eq!(cost(4096, 0, 1_000), Nanos::from_millis(1));
        assert_eq!(cost(4096, 0, 0), Nanos::ZERO);
        assert_eq!(cost(u64::MAX, 1, 0), Nanos(u64::MAX));
    }
}
