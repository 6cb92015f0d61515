//! What tasks do: one body for each kind, the same in every world.
//!
//! **Invariants.** TASK-1: every offset lies within the file, so nothing grows it and no read comes back short.

use crate::blocks::{BlockTally, Holder};
use crate::plan::PlanTask;
use crate::progress::{self, Phase};
use crate::replay::ReplayTally;
use crate::rng::{Rng, Scatter, Zipf};
use crate::samples::OpCount;
use crate::scenario::Kind;
use crate::target::{Handle, Host, OpError};
use hdrhistogram::Histogram;
use highwater_engine::world::Nanos;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that `page-mut-write` changes in a page.
const TOUCH_BYTES: usize = 64;
/// How long a thread pauses after an operation was refused.
const REFUSED_PAUSE: Nanos = Nanos::from_micros(100);

/// When a task is measured.
#[derive(Clone, Debug)]
pub struct Window {
    /// From here.
    pub start: Nanos,
    /// Until here; then it ends.
    pub end: Nanos,
    /// Measured operations that all tasks together have left; then they end.
    pub ops: Option<Arc<AtomicU64>>,
    /// Where the thread counts what it does, settling included.
    pub count: Arc<OpCount>,
}

impl Window {
    /// Takes one measured operation out of what is left; false when nothing is.
    pub fn take(&self) -> bool {
        let Some(left) = &self.ops else {
            return true;
        };
        // Relaxed: a count, and nothing else goes by it.
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    }
}

/// What one thread of a task did within the window.
#[derive(Debug)]
pub struct Tally {
    /// Latency in nanoseconds.
    pub latency: Histogram<u64>,
    /// Operations that were done.
    pub ops: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Operations refused for want of memory.
    pub refused: u64,
    /// The longest wait of the thread.
    pub longest_ns: u64,
    /// Why it ended early.
    pub failed: Option<String>,
    /// What a replay counts beside.
    pub replay: Option<Box<ReplayTally>>,
    /// What requests for blocks that were refused took.
    pub blocks: Option<Box<BlockTally>>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally {
            // Up to 10 minutes, three digits.
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)
                .expect("bounds of a histogram"),
            ops: 0,
            bytes: 0,
            refused: 0,
            longest_ns: 0,
            failed: None,
            replay: None,
            blocks: None,
        }
    }

    fn note_refused(&mut self) -> &mut Histogram<u64> {
        let blocks = self
            .blocks
            .get_or_insert_with(|| Box::new(BlockTally::new()));
        &mut blocks.0
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Tally) {
        self.latency
            .add(&other.latency)
            .expect("histograms of the same bounds");
        self.ops += other.ops;
        self.bytes += other.bytes;
        self.refused += other.refused;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        if let Some(replay) = &other.replay {
            self.replay
                .get_or_insert_with(|| Box::new(ReplayTally::new()))
                .add(replay);
        }
        if let Some(blocks) = &other.blocks {
            self.note_refused().add(&blocks.0).expect("same bounds");
        }
        if self.failed.is_none() {
            self.failed.clone_from(&other.failed);
        }
    }
}

/// What became of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noted {
    /// Done, and in the tally: how long it took.
    Measured(Nanos),
    /// Not in the tally: done before the window, or refused.
    Passed,
    /// Failed: the thread ends.
    Failed,
}

/// One thread's accounting, the same for every kind of task: when it is measured, and what it did.
pub struct Meter<'a, H> {
    host: &'a H,
    window: &'a Window,
    task: &'a PlanTask,
    measured: bool,
    tally: Tally,
}

impl<'a, H: Host> Meter<'a, H> {
    /// Nothing yet.
    pub fn new(host: &'a H, task: &'a PlanTask, window: &'a Window) -> Meter<'a, H> {
        Meter {
            host,
            window,
            task,
            measured: false,
            tally: Tally::new(),
        }
    }

    /// Begins an operation, charged with what the task does itself: its time, or `None` when the thread is to end.
    pub fn begin(&mut self) -> Option<Nanos> {
        self.host.charge_task();
        let begin = self.host.now();
        if begin >= self.window.end {
            return None;
        }
        if !self.measured && begin >= self.window.start {
            self.measured = true;
            self.host.reset_longest();
        }
        (!self.measured || self.window.take()).then_some(begin)
    }

    /// Counts the operation that began at `begin` and ends now.
    pub fn note(&mut self, begin: Nanos, result: Result<u64, OpError>) -> Noted {
        let end = self.host.now();
        match result {
            Ok(bytes) => {
                self.window.count.add();
                if !self.measured {
                    return Noted::Passed;
                }
                self.tally.ops += 1;
                self.tally.bytes += bytes;
                let took = Nanos(end.since(begin).0.max(1));
                self.tally.latency.saturating_record(took.0);
                Noted::Measured(took)
            }
            Err(OpError::Refused) => {
                self.tally.refused += u64::from(self.measured);
                if self.measured && self.task.blocks.is_some() {
                    let took = end.since(begin).0.max(1);
                    self.tally.note_refused().saturating_record(took);
                }
                // A refused operation waited already; without a pause a refusal that does not wait would spin.
                self.host.sleep_until(end.plus(REFUSED_PAUSE));
                Noted::Passed
            }
            Err(OpError::Failed(why)) => {
                self.fail(&why);
                Noted::Failed
            }
        }
    }

    /// The thread ends early, and so does the arm.
    pub fn fail(&mut self, why: &str) {
        self.tally.failed = Some(format!("task {}: {why}", self.task.name));
    }

    /// What the thread did.
    pub fn end(mut self) -> Tally {
        self.tally.longest_ns = self.host.stall().longest_ns;
        self.tally
    }
}

/// One thread of a task: where it is and what it draws next.
struct Body<'a, F> {
    file: &'a F,
    task: &'a PlanTask,
    rng: Rng,
    zipf: Option<(Zipf, Scatter)>,
    buf: Vec<u8>,
    /// Pages of the file, and places for `io` bytes in it.
    pages: u64,
    places: u64,
    /// The stream's next place.
    cursor: u64,
    turn: u64,
    holder: Holder,
}

impl<F: Handle> Body<'_, F> {
    /// One operation; its bytes.
    fn step(&mut self) -> Result<u64, OpError> {
        self.turn += 1;
        let io = self.buf.len() as u64;
        match self.task.kind {
            Kind::RandomWrite => {
                let place = self.rng.below(self.places);
                self.write(place * io)
            }
            Kind::RandomRead => {
                let place = self.rng.below(self.places);
                self.read(place * io)
            }
            Kind::StreamWrite => {
                let place = self.next_place();
                self.write(place * io)
            }
            Kind::StreamRead => {
                let place = self.next_place();
                self.read(place * io)
            }
            Kind::PageMutWrite => {
                let page = self.rng.below(self.pages);
                let mut bytes = [0u8; TOUCH_BYTES];
                bytes[..8].copy_from_slice(&self.turn.to_le_bytes());
                self.file.touch_mut(page, &bytes)?;
                Ok(TOUCH_BYTES as u64)
            }
            Kind::PageRead => {
                let page = self.rng.below(self.pages);
                std::hint::black_box(self.file.touch(page)?);
                Ok(8)
            }
            Kind::FreshPage => {
                let page = self.cursor % self.pages;
                self.cursor += 1;
                std::hint::black_box(self.file.touch(page)?);
                Ok(self.file.page_size() as u64)
            }
            Kind::AllocBlock => {
                let blocks = self.task.blocks.expect("a task of blocks has its order");
                self.holder.step(self.file, blocks, self.turn)
            }
            Kind::Replay => unreachable!("replay::run is the body of a replay"),
            Kind::Zipf => {
                let (zipf, scatter) = self.zipf.as_ref().expect("a zipf task has its law");
                let place = scatter.page(zipf.draw(&mut self.rng));
                if self.rng.unit() < self.task.write_share {
                    self.write(place * io)
                } else {
                    self.read(place * io)
                }
            }
        }
    }

    fn next_place(&mut self) -> u64 {
        let place = self.cursor % self.places;
        self.cursor += 1;
        place
    }

    fn write(&mut self, offset: u64) -> Result<u64, OpError> {
        let stamp = self.turn.to_le_bytes();
        let n = stamp.len().min(self.buf.len());
        self.buf[..n].copy_from_slice(&stamp[..n]);
        self.file.write_at(&self.buf, offset)?;
        Ok(self.buf.len() as u64)
    }

    fn read(&mut self, offset: u64) -> Result<u64, OpError> {
        self.file.read_at(&mut self.buf, offset)?;
        Ok(self.buf.len() as u64)
    }
}

/// Runs thread `thread` of `task` until the window ends.
pub fn run<H: Host, F: Handle>(
    host: &H,
    file: &F,
    task: &PlanTask,
    seed: u64,
    thread: u32,
    window: &Window,
) -> Tally {
    let mut meter = Meter::new(host, task, window);
    let io = task.io.min(file.len()).max(1);
    let places = (file.len() / io).max(1);
    let pages = (file.len() / file.page_size() as u64).max(1);
    let share = if task.kind == Kind::FreshPage {
        pages
    } else {
        places
    };
    let mut body = Body {
        file,
        task,
        rng: Rng::new(seed, u64::from(thread)),
        zipf: (task.kind == Kind::Zipf)
            .then(|| (Zipf::new(places, task.exponent), Scatter::new(places))),
        buf: vec![0x5A; io as usize],
        pages,
        places,
        // Threads of one stream start at equal distances.
        cursor: share / u64::from(task.threads) * u64::from(thread),
        turn: 0,
        holder: Holder::default(),
    };
    let interval = task.rate.map(|rate| (1e9 / rate) as u64);
    let mut slot = host.now();
    loop {
        if let Some(interval) = interval {
            // A slot that has passed is skipped, not made up for.
            slot = Nanos(slot.0 + interval).max(host.now());
            host.sleep_until(slot.min(window.end));
        }
        let Some(begin) = meter.begin() else { break };
        if meter.note(begin, body.step()) == Noted::Failed {
            break;
        }
        if let Some(every) = task.fsync_every
            && body.turn.is_multiple_of(every)
            && let Err(OpError::Failed(why)) = file.sync()
        {
            meter.fail(&format!("sync: {why}"));
            break;
        }
        if task.think_ns > 0 {
            host.sleep_until(host.now().plus(Nanos(task.think_ns)));
        }
    }
    file.count_own();
    meter.end()
}

/// Writes `bytes` bytes through `files`, one after the other, from the start of each and around again.
pub fn warm_up<F: Handle>(files: &[&F], bytes: u64) -> Result<(), OpError> {
    const IO: u64 = 64 << 10;
    let buf = vec![0xA5u8; IO as usize];
    let mut left = bytes;
    let mut offset = 0;
    while left >= IO && !files.is_empty() {
        for file in files {
            let at = offset % file.len().max(IO);
            let n = IO.min(file.len().saturating_sub(at)).max(1);
            match file.write_at(&buf[..n as usize], at) {
                Ok(()) | Err(OpError::Refused) => left = left.saturating_sub(n),
                Err(e) => return Err(e),
            }
        }
        offset += IO;
        progress::at(Phase::WarmUp, bytes - left, bytes);
    }
    Ok(())
}
