//! Rounds that live in memory: pinned threads that start together, and the time of one operation.
//!
//! **What counts.** Wall time, less the time a thread was ready to run and another program had its CPU (the kernel's
//! `run_delay`): on a machine with nothing else to do the two are the same. Time asleep, as for a contended lock, counts.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Operations between two looks at the clock (25 ns here): less than 0.1 ns an operation.
const BATCH: usize = 1024;

/// Binds the calling thread to the `n`-th CPU that it may run on; on failure it stays unbound.
fn pin(n: usize) {
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|c| allowed.is_set(*c))
        .collect();
    if !cpus.is_empty() {
        let mut one = CpuSet::new();
        one.set(cpus[n % cpus.len()]);
        let _ = sched_setaffinity(None, &one);
    }
}

/// Nanoseconds the calling thread has been ready to run without a CPU; 0 where the kernel does not say.
fn run_delay_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// Nanoseconds of one operation as a thread sees it, mean over `threads` threads, each pinned to a CPU of its own.
/// `make` gives the work of a thread: a function that does so many operations.
pub fn ns_per_op<W: FnMut(usize)>(
    threads: usize,
    length: Duration,
    make: impl Fn(usize) -> W + Sync,
) -> f64 {
    let start = Barrier::new(threads);
    let one = |n: usize| -> f64 {
        pin(n);
        let mut work = make(n);
        work(BATCH);
        start.wait();
        let (delay, begin, mut ops) = (run_delay_ns(), Instant::now(), 0usize);
        loop {
            work(BATCH);
            ops += BATCH;
            let passed = begin.elapsed();
            if passed >= length {
                let waited = Duration::from_nanos(run_delay_ns() - delay);
                let ran = passed.saturating_sub(waited);
                return ran.as_nanos() as f64 / ops as f64;
            }
        }
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn({
                    let one = &one;
                    move || one(n)
                })
            })
            .collect();
        let sum: f64 = all
            .into_iter()
            .map(|t| t.join().expect("a thread of the round"))
            .sum();
        sum / threads as f64
    })
}
