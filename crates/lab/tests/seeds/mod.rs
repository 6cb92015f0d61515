//! Seeds on all cores: each runs on an OS thread of its own, as a lab belongs to one.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The seeds that the environment asks for.
#[allow(dead_code)]
pub fn asked_for() -> Option<Range<u64>> {
    let number = |s: &str| s.trim().parse::<u64>().ok();
    let get = |name: &str| std::env::var(name).ok();
    if let Some(n) = get("HIGHWATER_SEED").and_then(|s| number(&s)) {
        return Some(n..n + 1);
    }
    let range = get("HIGHWATER_SEEDS")?;
    let (a, b) = range.split_once("..")?;
    Some(number(a)?..number(b)?)
}

/// The text of a panic.
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "a panic without text".to_owned())
}

/// Runs `run` for every seed, on as many threads as there are cores; the results in the order of the seeds.
///
/// # Panics
/// With all failures, when any seed fails.
#[allow(dead_code)]
pub fn each_seed<R: Send>(seeds: Range<u64>, run: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let next = AtomicU64::new(seeds.start);
    let done = Mutex::new(Vec::new());
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // Relaxed: the add alone makes seeds distinct.
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(seed))) {
                        Ok(r) => done.lock().unwrap().push((seed, r)),
                        Err(p) => failed.lock().unwrap().push((seed, text_of(&*p))),
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let lines = failed
        .iter()
        .map(|(n, text)| format!("\n  seed {n}: {text}"));
    let lines: String = lines.collect();
    assert!(failed.is_empty(), "{} seeds failed:{lines}", failed.len());
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, r)| r).collect()
}
