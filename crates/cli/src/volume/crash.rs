//! `highwater volume crash-test`: power failures of a journaled volume in the lab, as many images as one likes.

use super::args::CrashTestArgs;
use crate::cleanup;
use crate::counted::Counted;
use crate::error::{CliError, Result};
use crate::jobs::jobs;
use crate::outputs;
use crate::units::show_count;
use highwater_lab::crash::{self, CrashReport, Drawn};
use serde::Serialize;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Images of one seed, at most.
const OF_A_SEED: u64 = 45;

/// The shape of `--json`.
#[derive(Debug, Default, Serialize)]
struct Summary {
    first_seed: u64,
    seeds: u64,
    images: u64,
    operations: u64,
    operations_failed: u64,
    writes_refused_full: u64,
    syncs: u64,
    pages_compared: u64,
    images_that_replayed_the_log: u64,
    mounts_used_on: u64,
    disk_faults: u64,
    failures: Vec<Failure>,
}

#[derive(Clone, Debug, Serialize)]
struct Failure {
    seed: u64,
    options: String,
    text: String,
}

impl Summary {
    fn add(&mut self, r: &CrashReport) {
        self.seeds += 1;
        self.images += r.images;
        self.operations += r.operations;
        self.operations_failed += r.failed;
        self.writes_refused_full += r.refused;
        self.syncs += r.syncs;
        self.pages_compared += r.pages_checked;
        self.images_that_replayed_the_log += r.replayed;
        self.mounts_used_on += r.mounts;
        self.disk_faults += r.faults;
    }

    fn text(&self, seconds: f64) -> String {
        format!(
            "{} images of {} seeds from {}: each checked with fsck, mounted, compared, and checked again; {} of them replayed the log\n\
             {} operations, {} syncs, {} writes refused because the volume was full, {} faults of the disk; {} pages compared; {} volumes used on after a crash\n\
             {seconds:.1} s: {:.0} images a second\n",
            show_count(self.images),
            show_count(self.seeds),
            self.first_seed,
            show_count(self.images_that_replayed_the_log),
            show_count(self.operations),
            show_count(self.syncs),
            show_count(self.writes_refused_full),
            show_count(self.disk_faults),
            show_count(self.pages_compared),
            show_count(self.mounts_used_on),
            self.images as f64 / seconds.max(1e-9),
        )
    }
}

/// Runs the command.
///
/// # Errors
/// With the first failing seed and the line that repeats it.
pub(super) fn run(args: &CrashTestArgs) -> Result<()> {
    if args.images == 0 || args.seeds == Some(0) {
        return Err(CliError::usage("no images prove nothing", "--images 10000"));
    }
    cleanup::watch_signals();
    let begin = Instant::now();
    let progress = Counted::new(args.images, "images");
    let summary = Mutex::new(Summary {
        first_seed: args.seed,
        ..Summary::default()
    });
    let (next, stop) = (AtomicU64::new(args.seed), AtomicBool::new(false));
    let work = || {
        // Relaxed, both: the add alone makes seeds distinct, and a late look at `stop` runs one seed more.
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let result = catch_unwind(|| crash::run(seed, OF_A_SEED));
            let mut summary = summary.lock().unwrap_or_else(|e| e.into_inner());
            match result {
                Ok(report) => summary.add(&report),
                Err(panic) => {
                    summary.seeds += 1;
                    summary.failures.push(Failure {
                        seed,
                        options: Drawn::draw(seed).to_string(),
                        text: crate::soak::text_of(&*panic),
                    });
                }
            }
            let ended =
                summary.images >= args.images || args.seeds.is_some_and(|n| summary.seeds >= n);
            if ended || !summary.failures.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
            progress.at(summary.images);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs(args.jobs) {
            scope.spawn(work);
        }
    });
    cleanup::wait_if_ending();
    progress.end();
    let mut summary = summary.into_inner().unwrap_or_else(|e| e.into_inner());
    summary.failures.sort_by_key(|f| f.seed);
    let text = summary.text(begin.elapsed().as_secs_f64());
    outputs::publish(&text, &summary, args.json.as_deref())?;
    verdict(&summary)
}

fn verdict(summary: &Summary) -> Result<()> {
    let Some(f) = summary.failures.first() else {
        return Ok(());
    };
    Err(CliError::failed(
        format!("{}\nseed {} failed: {}", f.options, f.seed, f.text),
        format!("highwater volume crash-test --seed {} --seeds 1", f.seed),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_ends_with_the_line_that_repeats_it() {
        let summary = Summary {
            failures: vec![Failure {
                seed: 17,
                options: "seed 17: 24 pages".into(),
                text: "CRASH-1: page 3".into(),
            }],
            ..Summary::default()
        };
        let e = verdict(&summary).unwrap_err();
        assert_eq!(e.remedy, "highwater volume crash-test --seed 17 --seeds 1");
        assert!(
            e.message.contains("24 pages") && e.message.contains("CRASH-1"),
            "{e}"
        );
    }
}
