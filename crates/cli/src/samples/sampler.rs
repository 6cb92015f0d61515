//! The task that reads the world at equal intervals, and how often it looks.

use super::columns::{Taken, columns};
use super::ends::Ends;
use super::reading::Reading;
use crate::error::Result;
use crate::plan::Plan;
use crate::progress::{self, Phase};
use crate::report::ArmReport;
use crate::target::Host;
use crate::tasks::Window;
use highwater_engine::world::Nanos;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Samples of the measured time.
const WANTED: u64 = 300;
/// Samples of the time before it.
const SETTLE_WANTED: u64 = 50;
/// More are thinned out.
const MOST: usize = 400;
/// It hears of its end within so long, which is less than anybody waits for it.
const LISTEN: Nanos = Nanos::from_secs(5);

/// Operations that one thread has done; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OpCount(AtomicU64);

impl OpCount {
    /// One more. Only the thread that owns the count calls it.
    #[inline]
    pub fn add(&self) {
        // Relaxed, and no read-modify-write: one thread writes, and a sampler that reads late is late by one.
        let n = self.0.load(Ordering::Relaxed);
        self.0.store(n + 1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        // Relaxed: a statistic.
        self.0.load(Ordering::Relaxed)
    }
}

/// What reads the world.
pub type Probe = Arc<dyn Fn() -> Reading + Send + Sync>;

/// A sampler at work.
pub struct Sampler<H: Host> {
    id: H::Id,
    stop: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Taken>>>,
    start: Nanos,
    names: Vec<String>,
}

impl<H: Host> Sampler<H> {
    /// Starts it. `counts` has one list of thread counts for each task of the plan.
    ///
    /// # Errors
    /// When the task cannot be started.
    pub fn start(
        plan: &Plan,
        host: &Arc<H>,
        window: &Window,
        counts: Vec<Vec<Arc<OpCount>>>,
        probe: Probe,
    ) -> Result<Sampler<H>> {
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(Mutex::new(Vec::new()));
        let rhythm = Rhythm::new(plan);
        let (host2, stop2, sink) = (host.clone(), stop.clone(), taken.clone());
        let (start, end) = (window.start, window.end);
        let ends = Ends::new(plan, window);
        let body = move || {
            let read = || {
                let taken = Taken {
                    at: host2.now(),
                    reading: probe(),
                    ops: counts
                        .iter()
                        .map(|threads| threads.iter().map(|c| c.get()).sum())
                        .collect(),
                };
                progress::at(Phase::Measure, ends.thousandths(&taken), 1_000);
                taken
            };
            let samples = sample(&*host2, rhythm, start, end, &stop2, read);
            *sink.lock().unwrap_or_else(|e| e.into_inner()) = samples;
        };
        let id = host.spawn("sampler", Box::new(body))?;
        Ok(Sampler {
            id,
            stop,
            taken,
            start,
            names: plan.tasks.iter().map(|t| t.name.clone()).collect(),
        })
    }

    /// Ends it, waits for it until `until`, and puts its samples into the report. Sleeps for at most one interval or five
    /// seconds, whichever is less.
    pub fn finish(self, host: &H, until: Nanos, report: &mut ArmReport) {
        // Relaxed: it carries nothing but itself; the samples arrive through the mutex and the join.
        self.stop.store(true, Ordering::Relaxed);
        if !host.join(self.id, until) {
            return;
        }
        let taken = std::mem::take(&mut *self.taken.lock().unwrap_or_else(|e| e.into_inner()));
        report.limits = taken.last().and_then(|t| t.reading.limits);
        report.samples = Some(columns(&taken, self.start, &self.names));
    }
}

/// How often to look.
#[derive(Clone, Copy)]
struct Rhythm {
    settle: Nanos,
    measured: Nanos,
    thin: bool,
}

impl Rhythm {
    fn new(plan: &Plan) -> Rhythm {
        // What ends with its operations or its trace may end long before its time: it is looked at often, then less so.
        let open = plan.ops.is_some() || plan.tasks.iter().any(|t| t.replay.is_some());
        let measured = match open {
            true => 1_000_000,
            false => (plan.duration_ns / WANTED).max(10_000),
        };
        Rhythm {
            settle: Nanos((plan.settle_ns / SETTLE_WANTED).max(10_000)),
            measured: Nanos(measured),
            thin: open,
        }
    }
}

fn sample<H: Host>(
    host: &H,
    mut rhythm: Rhythm,
    start: Nanos,
    end: Nanos,
    stop: &AtomicBool,
    read: impl Fn() -> Taken,
) -> Vec<Taken> {
    let mut taken: Vec<Taken> = Vec::new();
    loop {
        let sample = read();
        let now = sample.at;
        taken.push(sample);
        // Relaxed: as where it is set.
        if stop.load(Ordering::Relaxed) || now >= end {
            return taken;
        }
        if rhythm.thin && taken.len() > MOST {
            let mut index = 0;
            taken.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            rhythm.measured = Nanos(rhythm.measured.0 * 2);
        }
        let next = match now < start {
            true => now.plus(rhythm.settle).min(start),
            // On the grid, so that a late wake-up does not shift all that follow.
            false => {
                let step = rhythm.measured.0;
                Nanos(start.0 + (now.since(start).0 / step + 1) * step).min(end)
            }
        };
        // In short sleeps, so that it hears of the end of a run that takes days.
        while host.now() < next && !stop.load(Ordering::Relaxed) {
            host.sleep_until(next.min(host.now().plus(LISTEN)));
        }
    }
}
