//! `highwater soak`: seeds of the lab on all CPUs, every byte compared, and the one line that repeats a failure.
//!
//! A seed is a run of its own on one thread (a lab belongs to one). What a seed draws, and what is compared, is
//! `highwater_lab::soak`.
//!
//! Every check of the lab is on in a release build but the assertions of lock order and of sleeping under a lock, which
//! need debug assertions: `cargo test` and `--profile soak` have them.

mod args;
mod summary;

pub use args::{EXAMPLES, SoakArgs};

use crate::cleanup;
use crate::counted::Counted;
use crate::error::{CliError, Result};
use crate::jobs::jobs;
use crate::outputs;
use highwater_engine::Preset;
use highwater_lab::soak::{SoakOptions, run_options};
use highwater_lab::stack::Overflow;
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use summary::{Failure, Summary};

/// From so many seeds on, a slow path that none reached is a failure.
const COVERAGE_SEEDS: u64 = 100;
/// The text of a panic.
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .or_else(|| panic.downcast_ref::<Overflow>().map(Overflow::to_string))
        .unwrap_or_else(|| "a panic without text".to_owned())
}

/// What the threads share.
struct Run {
    next: AtomicU64,
    end: u64,
    stop: AtomicBool,
    summary: Mutex<Summary>,
    progress: Counted,
    verbose: bool,
    keep_going: bool,
    stack: Option<u64>,
    preset: Option<Preset>,
    #[cfg(feature = "plant")]
    plant: Option<String>,
    /// All threads have ended: the summary is printed by who waits for them.
    ended: AtomicBool,
}

impl Run {
    fn options(&self, seed: u64) -> SoakOptions {
        #[allow(unused_mut)]
        let mut options = SoakOptions::draw(seed);
        options.stack_size = self.stack.map(|n| n as usize);
        if let Some(preset) = self.preset {
            options.policy = preset.policy();
            options.preset = Some(preset);
        }
        #[cfg(feature = "plant")]
        if let Some(name) = &self.plant {
            options.plant = highwater_engine::plant::Plant::by_name(name);
        }
        options
    }

    /// Seeds until none is left.
    fn work(&self) {
        // Relaxed, both: the add alone makes seeds distinct, and a late look at `stop` runs one seed more.
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            self.one(seed);
        }
    }

    fn one(&self, seed: u64) {
        let options = self.options(seed);
        let (line, drawn) = (options.to_string(), options.clone());
        if self.verbose {
            self.progress.say(&line);
        }
        let result = catch_unwind(AssertUnwindSafe(|| run_options(options)));
        let mut summary = self.summary.lock().unwrap_or_else(|e| e.into_inner());
        match result {
            Ok(report) => summary.add(&drawn, &report),
            Err(panic) => {
                summary.seeds += 1;
                summary.failures.push(Failure {
                    seed,
                    options: line,
                    text: text_of(&*panic),
                });
                if !self.keep_going {
                    // Relaxed: see `work`.
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
        match summary.failures.len() {
            0 => {}
            n => self.progress.message(&format!("{n} FAILED")),
        }
        self.progress.at(summary.seeds);
    }
}

/// The seeds that the command line asks for.
fn seeds(args: &SoakArgs) -> Result<Range<u64>> {
    let (first, n) = (
        args.seed,
        args.seeds.unwrap_or(if args.seed == 0 { 100 } else { 1 }),
    );
    if n == 0 {
        return Err(CliError::usage("no seeds prove nothing", "--seeds 100"));
    }
    match first.checked_add(n) {
        Some(end) => Ok(first..end),
        None => Err(CliError::usage(
            format!(
                "seeds end at {}: {n} from {first} on are too many",
                u64::MAX
            ),
            "a smaller --seed",
        )),
    }
}

/// The one preset of `--preset`.
fn preset_of(args: &SoakArgs) -> Result<Option<Preset>> {
    let Some(name) = &args.preset else {
        return Ok(None);
    };
    match crate::plan::presets([name.as_str()])?[..] {
        [preset] => Ok(Some(preset)),
        _ => Err(CliError::usage(
            format!("--preset {name} names several, and a seed runs one"),
            "--preset highwater; or none, and each seed draws its own",
        )),
    }
}

#[cfg(feature = "plant")]
fn check_plant(name: &str) -> Result<()> {
    use highwater_engine::plant::Plant;
    if Plant::by_name(name).is_some() {
        return Ok(());
    }
    let names: Vec<String> = Plant::ALL.iter().map(|p| p.name()).collect();
    let near = crate::error::did_you_mean(name, names.iter().map(String::as_str));
    let hint = near.map_or(String::new(), |w| format!("; did you mean {w}?"));
    Err(CliError::usage(
        format!("unknown planted bug {name:?}{hint}"),
        format!("--plant with one of {}", names.join(", ")),
    ))
}

#[cfg(not(feature = "plant"))]
fn check_plant(_: &str) -> Result<()> {
    Err(CliError::usage(
        "this build has no planted bugs",
        "cargo run --release -p highwater-cli --features plant -- soak --plant lost-dirty --seeds 200",
    ))
}

/// Runs the command.
///
/// # Errors
/// With the first failing seed and the line that repeats it; when at least 100 seeds leave a slow path unreached.
pub fn run(args: &SoakArgs) -> Result<()> {
    let seeds = seeds(args)?;
    if let Some(name) = &args.plant {
        check_plant(name)?;
    }
    let preset = preset_of(args)?;
    let jobs = (jobs(args.jobs) as u64).min(seeds.end - seeds.start);
    let run = Arc::new(Run {
        next: AtomicU64::new(seeds.start),
        end: seeds.end,
        stop: AtomicBool::new(false),
        summary: Mutex::new(Summary {
            first_seed: seeds.start,
            ..Summary::default()
        }),
        progress: Counted::new(seeds.end - seeds.start, "seeds"),
        // One seed is looked at: what it drew is half of the answer.
        verbose: args.verbose || seeds.end - seeds.start == 1,
        keep_going: args.keep_going,
        stack: args.stack,
        preset,
        #[cfg(feature = "plant")]
        plant: args.plant.clone(),
        ended: AtomicBool::new(false),
    });
    cleanup::watch_signals();
    let begin = Instant::now();
    let at_end = run.clone();
    // On Ctrl-C: what was done until then.
    let undo = cleanup::undo(move || {
        // Relaxed: set by the thread that drops this, or not at all.
        if at_end.ended.load(Ordering::Relaxed) {
            return;
        }
        let summary = at_end.summary.lock().unwrap_or_else(|e| e.into_inner());
        let text = summary.text(begin.elapsed().as_secs_f64());
        at_end.progress.say(text.trim_end());
    });
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| run.work());
        }
    });
    cleanup::wait_if_ending();
    run.ended.store(true, Ordering::Relaxed);
    drop(undo);
    run.progress.end();
    let mut summary = run.summary.lock().unwrap_or_else(|e| e.into_inner());
    summary.failures.sort_by_key(|f| f.seed);
    summary.cover();
    publish(args, &summary, begin.elapsed().as_secs_f64())?;
    verdict(args, &summary)
}

fn publish(args: &SoakArgs, summary: &Summary, seconds: f64) -> Result<()> {
    let mut text = summary.text(seconds);
    if args.coverage || summary.seeds >= COVERAGE_SEEDS {
        text.push_str(&summary.coverage_text());
    }
    outputs::publish(&text, summary, args.json.as_deref())
}

fn verdict(args: &SoakArgs, summary: &Summary) -> Result<()> {
    if let Some(f) = summary.failures.first() {
        let more = match summary.failures.len() {
            1 => String::new(),
            n => format!(" (and {} seeds more)", n - 1),
        };
        let plant = args
            .plant
            .as_ref()
            .map_or(String::new(), |p| format!(" --plant {p}"));
        let stack = args
            .stack
            .map_or(String::new(), |n| format!(" --stack {n}"));
        let preset = args.preset.as_ref();
        let preset = preset.map_or(String::new(), |p| format!(" --preset {p}"));
        return Err(CliError::failed(
            format!("{}\nseed {} failed{more}: {}", f.options, f.seed, f.text),
            format!(
                "highwater soak --seed {} --seeds 1{stack}{preset}{plant}",
                f.seed
            ),
        ));
    }
    // One preset leaves unreached what only others do.
    let all = args.plant.is_none() && args.preset.is_none();
    if all && summary.seeds >= COVERAGE_SEEDS && !summary.never_reached.is_empty() {
        return Err(CliError::failed(
            format!(
                "{} seeds never reached: {}",
                summary.seeds,
                summary.never_reached.join(", ")
            ),
            "more --seeds; what they still miss, the soak's options must draw",
        ));
    }
    if let Some(name) = &args.plant {
        return Err(CliError::failed(
            format!(
                "the planted bug {name} was not found by {} seeds",
                summary.seeds
            ),
            "more --seeds; what they still miss, the soak's options must draw",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(seed: u64, seeds: Option<u64>) -> SoakArgs {
        SoakArgs {
            stack: None,
            preset: None,
            seed,
            seeds,
            jobs: None,
            verbose: false,
            keep_going: false,
            coverage: false,
            plant: None,
            json: None,
        }
    }

    #[test]
    fn seeds_are_counted_from_the_first() {
        assert_eq!(seeds(&args(0, None)).unwrap(), 0..100);
        assert_eq!(seeds(&args(17, None)).unwrap(), 17..18);
        assert_eq!(seeds(&args(17, Some(3))).unwrap(), 17..20);
        assert!(seeds(&args(17, Some(0))).is_err());
        let e = seeds(&args(u64::MAX, Some(2))).unwrap_err();
        assert!(e.message.contains("too many"), "{e}");
    }

    #[test]
    fn a_slow_path_that_no_seed_reached_is_named() {
        let mut summary = Summary::default();
        summary.counters.insert("hits", 5);
        summary.cover();
        assert!(summary.never_reached.contains(&"congestion_wait"));
        assert!(!summary.never_reached.contains(&"hits"));
        assert!(!summary.never_reached.contains(&"lost_wakeups"));
        summary.seeds = COVERAGE_SEEDS;
        let e = verdict(&args(0, None), &summary).unwrap_err();
        assert!(e.message.contains("never reached: ") && e.message.contains("congestion_wait"));
    }

    #[test]
    fn a_failure_ends_with_the_line_that_repeats_it() {
        let summary = Summary {
            seeds: 3,
            failures: vec![Failure {
                seed: 17,
                options: "seed 17: 3.2".into(),
                text: "SHADOW-1".into(),
            }],
            ..Summary::default()
        };
        let e = verdict(&args(0, None), &summary).unwrap_err();
        assert_eq!(e.remedy, "highwater soak --seed 17 --seeds 1");
        assert!(e.message.contains("seed 17: 3.2") && e.message.contains("SHADOW-1"));
    }

    #[test]
    fn an_overflow_is_a_failure_with_its_chain_and_the_line_that_repeats_it() {
        let overflow = Overflow {
            seed: 17,
            task: "user3".into(),
            size: 8192,
            fault: 8200,
            at: highwater_engine::Nanos::ZERO,
            chain: highwater_lab::stack::Chain::default(),
        };
        let text = text_of(&overflow);
        assert!(text.contains("user3 overflowed its stack of 8192 bytes"));
        assert!(text.contains("        Depth    Size   Location"));
        let mut args = args(17, Some(1));
        (args.stack, args.preset) = (Some(8192), Some("6.16".into()));
        let mut summary = Summary::default();
        summary.failures.push(Failure {
            seed: 17,
            options: "seed 17".into(),
            text,
        });
        let e = verdict(&args, &summary).unwrap_err();
        let line = "highwater soak --seed 17 --seeds 1 --stack 8192 --preset 6.16";
        assert_eq!(e.remedy, line);
    }

    #[test]
    fn a_build_without_planted_bugs_says_which_has_them() {
        if cfg!(not(feature = "plant")) {
            let e = check_plant("lost-dirty").unwrap_err();
            assert!(e.remedy.contains("--features plant"), "{e}");
        } else {
            assert!(check_plant("lost-dirty").is_ok());
            assert!(
                check_plant("lost-dirt")
                    .unwrap_err()
                    .message
                    .contains("lost-dirty")
            );
        }
    }
}
