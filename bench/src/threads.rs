//! Rounds that live in memory: pinned threads that start together, and the time of one operation.

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
        let (begin, mut ops) = (Instant::now(), 0usize);
        loop {
            work(BATCH);
            ops += BATCH;
            let passed = begin.elapsed();
            if passed >= length {
                return passed.as_nanos() as f64 / ops as f64;
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
