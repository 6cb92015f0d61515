//! What memory, writers and waits looked like over time: a task that reads gauges and counters at equal intervals.
//!
//! It always runs, so that a run is the same to the byte whether its samples are asked for or not. It takes 300 in the
//! measured time; where that has no set length (`--ops`) it starts at 1 ms and drops every other sample when there
//! are more than 400, doubling its interval. Counters are read as they stand and become differences at the end.
//!
//! **Context.** A task of the world that is measured; it takes no lock across a sleep and writes nothing.
//!
//! **Invariants.** SAMPLE-1: in each sample the states of memory sum to all frames. The gauges are read one after the
//! other, so a frame may have moved between two reads: a state gets at most what the states before it left.
//!
//! **Tests.** Here, and `tests/html.rs` on whole runs.

use crate::error::Result;
use crate::plan::Plan;
use crate::progress::{self, Phase};
use crate::report::ArmReport;
use crate::target::Host;
use crate::tasks::Window;
use highwater_engine::Stats;
use highwater_engine::world::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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

/// The counters that are sampled, under their names in `vmstat`.
pub const COUNTS: [&str; 11] = [
    "written_direct",
    "written_kswapd",
    "written_flusher",
    "written_writer",
    "written_sync",
    "allocstall_ns",
    "balance_dirty_pause_ns",
    "workingset_refault_file",
    "pgscan_kswapd",
    "pgscan_direct",
    "pages_read",
];

/// The states of memory, as the page stacks them from below.
pub const STATES: [&str; 6] = [
    "writeback",
    "dirty",
    "other",
    "clean",
    "unpopulated",
    "free",
];

/// Lines that an arm's memory is held against, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages in all.
    pub frames: u64,
    /// Free pages below which allocations wait; null where there is no such line.
    pub watermark_min: Option<u64>,
    /// Free pages below which kswapd wakes.
    pub watermark_low: Option<u64>,
    /// Free pages up to which kswapd works.
    pub watermark_high: Option<u64>,
    /// Dirty pages above which the flusher works.
    pub dirty_background: Option<u64>,
    /// Dirty pages that are never exceeded for long.
    pub dirty_limit: Option<u64>,
}

/// The world at one time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Pages in each of [`STATES`].
    pub states: Option<[u64; STATES.len()]>,
    /// Pages on the inactive and on the active list.
    pub lists: Option<[u64; 2]>,
    /// Each of [`COUNTS`] so far.
    pub counts: [Option<u64>; COUNTS.len()],
    /// The lines.
    pub limits: Option<Limits>,
}

impl Reading {
    /// From an engine's counters.
    pub fn of_engine(stats: &Stats) -> Reading {
        let get = |name: &str| stats.get(name);
        let (inactive, active) = (get("nr_inactive_file"), get("nr_active_file"));
        let listed = inactive + active + get("nr_isolated_file");
        let (writeback, dirty) = (get("nr_writeback"), get("nr_dirty"));
        let some = |name: &str| Some(get(name));
        Reading {
            states: Some(share_out(
                stats.frames,
                &Gauges {
                    free: get("nr_free_pages"),
                    unpopulated: get("nr_unpopulated"),
                    writeback,
                    dirty,
                    clean: listed.saturating_sub(writeback + dirty),
                },
            )),
            lists: Some([inactive, active]),
            counts: COUNTS.map(some),
            limits: Some(Limits {
                page_bytes: stats.frame_size as u64,
                frames: stats.frames,
                watermark_min: some("watermark_min"),
                watermark_low: some("watermark_low"),
                watermark_high: some("watermark_high"),
                dirty_background: some("nr_dirty_background_threshold"),
                dirty_limit: some("nr_dirty_threshold"),
            }),
        }
    }

    /// From the `memory.stat` of a cgroup, of either version, whose cache may have `memory` bytes.
    pub fn of_cgroup(memory_stat: &str, memory: u64) -> Reading {
        const PAGE: u64 = 4096;
        let get = |names: [&str; 2]| {
            let line = |l: &str| {
                let (name, value) = l.split_once(' ')?;
                names.contains(&name).then(|| value.trim().parse().ok())?
            };
            memory_stat.lines().find_map(line)
        };
        let pages = |names| get(names).map(|bytes: u64| bytes / PAGE);
        let frames = memory / PAGE;
        let states = || {
            let file = pages(["cache", "file"])?;
            let dirty = pages(["dirty", "file_dirty"])?;
            let writeback = pages(["writeback", "file_writeback"])?;
            Some(share_out(
                frames,
                &Gauges {
                    free: frames.saturating_sub(file),
                    unpopulated: 0,
                    writeback,
                    dirty,
                    clean: file.saturating_sub(writeback + dirty),
                },
            ))
        };
        let lists = || Some([pages(["inactive_file"; 2])?, pages(["active_file"; 2])?]);
        Reading {
            states: states(),
            lists: lists(),
            counts: COUNTS.map(|name| get([name; 2])),
            limits: Some(Limits {
                page_bytes: PAGE,
                frames,
                ..Limits::default()
            }),
        }
    }
}

/// Gauges as they were read, one after the other.
struct Gauges {
    free: u64,
    unpopulated: u64,
    writeback: u64,
    dirty: u64,
    clean: u64,
}

/// The frames by state, in the order of [`STATES`] (SAMPLE-1). What is in none of the others is on its way: isolated,
/// being read, granted to a waiter, or an old copy under writeback.
fn share_out(frames: u64, g: &Gauges) -> [u64; STATES.len()] {
    let mut left = frames;
    let mut take = |n: u64| {
        let n = n.min(left);
        left -= n;
        n
    };
    let (free, unpopulated) = (take(g.free), take(g.unpopulated));
    let (writeback, dirty, clean) = (take(g.writeback), take(g.dirty), take(g.clean));
    let states = [writeback, dirty, left, clean, unpopulated, free];
    assert_eq!(states.iter().sum::<u64>(), frames, "SAMPLE-1");
    states
}

/// Samples in columns, all of one length.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Samples {
    /// Seconds since the measured time began; below zero while tasks settle.
    pub t_s: Vec<f64>,
    /// Pages by state ([`STATES`]); null where it cannot be known.
    pub frames: BTreeMap<String, Option<Vec<u64>>>,
    /// Pages by list: `inactive`, `active`.
    pub lists: BTreeMap<String, Option<Vec<u64>>>,
    /// What each counter ([`COUNTS`]) rose by since the sample before.
    pub counts: BTreeMap<String, Option<Vec<u64>>>,
    /// Operations of each task since the sample before.
    pub ops: BTreeMap<String, Vec<u64>>,
}

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

/// One sample as it was taken.
struct Taken {
    at: Nanos,
    reading: Reading,
    ops: Vec<u64>,
}

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

/// What ends the measured time: its length, its operations, or the end of each trace that is replayed.
struct Ends {
    begin: Nanos,
    end: Nanos,
    ops: Option<(Arc<AtomicU64>, u64)>,
    /// The task's place in the plan, and its trace's requests.
    records: Vec<(usize, u64)>,
}

impl Ends {
    fn new(plan: &Plan, window: &Window) -> Ends {
        let replays = plan.tasks.iter().map(|t| t.replay.as_ref());
        let once = |r: &crate::replay::PlanReplay| (!r.repeat).then_some(r.records);
        let records: Option<Vec<u64>> = replays.map(|r| once(r?)).collect();
        Ends {
            begin: window.start.since(Nanos(plan.settle_ns)),
            end: window.end,
            ops: window.ops.clone().zip(plan.ops),
            records: records
                .unwrap_or_default()
                .into_iter()
                .enumerate()
                .collect(),
        }
    }

    /// How much of it is over, by what comes first.
    fn thousandths(&self, taken: &Taken) -> u64 {
        let share = |done: u64, of: u64| done.min(of) as f64 / of.max(1) as f64;
        let time = share(taken.at.since(self.begin).0, self.end.since(self.begin).0);
        // Relaxed: a statistic.
        let ops = self.ops.as_ref().map_or(0.0, |(left, all)| {
            share(all - left.load(Ordering::Relaxed).min(*all), *all)
        });
        let traces = self.records.iter().map(|&(i, n)| share(taken.ops[i], n));
        let traces = traces.reduce(f64::min).unwrap_or(0.0);
        (1_000.0 * time.max(ops).max(traces)) as u64
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

/// Columns out of samples: gauges as read, counters as differences.
fn columns(taken: &[Taken], start: Nanos, names: &[String]) -> Samples {
    let gauge = |get: &dyn Fn(&Reading) -> Option<u64>| -> Option<Vec<u64>> {
        taken.iter().map(|t| get(&t.reading)).collect()
    };
    let rise = |values: Vec<u64>| -> Vec<u64> {
        let before = values.first().copied().into_iter().chain(values.clone());
        let pairs = values.iter().zip(before);
        pairs.map(|(now, then)| now.saturating_sub(then)).collect()
    };
    let mut samples = Samples {
        t_s: taken
            .iter()
            .map(|t| (t.at.0 as f64 - start.0 as f64) / 1e9)
            .collect(),
        ..Samples::default()
    };
    for (i, name) in STATES.iter().enumerate() {
        let column = gauge(&|r| r.states.map(|s| s[i]));
        samples.frames.insert((*name).to_string(), column);
    }
    for (i, name) in ["inactive", "active"].iter().enumerate() {
        let column = gauge(&|r| r.lists.map(|s| s[i]));
        samples.lists.insert((*name).to_string(), column);
    }
    for (i, name) in COUNTS.iter().enumerate() {
        let column = gauge(&|r| r.counts[i]).map(rise);
        samples.counts.insert((*name).to_string(), column);
    }
    for (i, name) in names.iter().enumerate() {
        let column = rise(taken.iter().map(|t| t.ops[i]).collect());
        // Tasks of one name share a column.
        match samples.ops.get_mut(name) {
            Some(sum) => sum.iter_mut().zip(column).for_each(|(s, n)| *s += n),
            None => _ = samples.ops.insert(name.clone(), column),
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_sum_to_all_frames_whatever_the_gauges_say() {
        let g = |free, unpopulated, writeback, dirty, clean| Gauges {
            free,
            unpopulated,
            writeback,
            dirty,
            clean,
        };
        assert_eq!(
            share_out(100, &g(10, 5, 20, 30, 25)),
            [20, 30, 10, 25, 5, 10]
        );
        // A frame counted twice, as it moved between two reads.
        for gauges in [g(90, 0, 20, 30, 0), g(0, 0, 60, 60, 60), g(200, 1, 1, 1, 1)] {
            assert_eq!(share_out(100, &gauges).iter().sum::<u64>(), 100);
        }
    }

    #[test]
    fn progress_goes_by_what_ends_the_run_first() {
        let taken = |s, ops| Taken {
            at: Nanos::from_secs(s),
            reading: Reading::default(),
            ops,
        };
        let mut ends = Ends {
            begin: Nanos::from_secs(10),
            end: Nanos::from_secs(20),
            ops: None,
            records: Vec::new(),
        };
        assert_eq!(ends.thousandths(&taken(12, vec![])), 200);
        assert_eq!(ends.thousandths(&taken(99, vec![])), 1_000);
        ends.ops = Some((Arc::new(AtomicU64::new(25)), 100));
        assert_eq!(ends.thousandths(&taken(12, vec![])), 750);
        ends.ops = None;
        ends.records = vec![(0, 100), (1, 1_000)];
        let slowest = ends.thousandths(&taken(12, vec![100, 300]));
        assert_eq!(slowest, 300, "the run ends with the last of its traces");
    }

    #[test]
    fn counters_become_differences_and_a_missing_one_is_null() {
        let at = |ms: u64, n: u64| {
            let mut reading = Reading::default();
            reading.counts[0] = Some(n);
            Taken {
                at: Nanos::from_millis(ms),
                reading,
                ops: vec![n * 2, n],
            }
        };
        let taken = [at(0, 5), at(10, 7), at(20, 12)];
        let names = ["a".to_string(), "a".to_string()];
        let s = columns(&taken, Nanos::from_millis(10), &names);
        assert_eq!(s.t_s, [-0.01, 0.0, 0.01]);
        assert_eq!(s.counts["written_direct"], Some(vec![0, 2, 5]));
        assert_eq!(s.counts["written_kswapd"], None);
        assert_eq!(s.frames["dirty"], None);
        assert_eq!(s.ops["a"], [0, 6, 15]);
    }

    #[test]
    fn both_versions_of_a_cgroup_are_read() {
        let v1 =
            "cache 40960\ndirty 8192\nwriteback 4096\ninactive_file 20480\nactive_file 20480\n";
        let v2 = "anon 1\nfile 40960\nfile_dirty 8192\nfile_writeback 4096\ninactive_file 20480\nactive_file 20480\nworkingset_refault_file 3\n";
        for text in [v1, v2] {
            let r = Reading::of_cgroup(text, 81920);
            assert_eq!(r.states, Some([1, 2, 0, 7, 0, 10]));
            assert_eq!(r.lists, Some([5, 5]));
        }
        assert_eq!(Reading::of_cgroup(v2, 81920).counts[7], Some(3));
        assert_eq!(Reading::of_cgroup("", 81920).states, None);
    }
}
